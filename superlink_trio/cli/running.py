"""A SuperLink as a whole process: it minds the signals, logs every error, has an exit status.

Whatever is slow to import waits until signals are minded.
"""

from __future__ import annotations

import atexit
import enum
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from superlink_trio.config import CannotStart, ConfigError, SuperLinkConfig
from superlink_trio.config.address import Address
from superlink_trio.logs.wording import described, leaves

if TYPE_CHECKING:
    import trio

    from superlink_trio.supervision import Control

_log = logging.getLogger(__name__)

OK, FAILED, USAGE = 0, 1, 2

# What is at an address, in the log.
_PORTS = {"driver": "Driver API", "fleet": "Fleet API", "flower": "Flower 1.35 and later"}

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Link(Protocol):
    """What a running SuperLink can be asked for."""

    @property
    def driver_address(self) -> Address | None:
        """Where the Driver API listens, if it runs here."""

    @property
    def fleet_address(self) -> Address | None:
        """Where the Fleet API listens, if it runs here and has a port."""

    @property
    def flower_address(self) -> Address | None:
        """Where Flower 1.35 and later is served over HTTP, if it is."""

    async def reload(self) -> None:
        """Read keys and certificates again; the log says with what result."""


class Runner(Protocol):
    """`run_superlink` and its like."""

    async def __call__(
        self, config: SuperLinkConfig, *, control: Control, task_status: trio.TaskStatus[Link]
    ) -> None:
        """Run until `control` stops it, whether it is ready by then or not."""


def run(runner: Callable[[], Runner], config: SuperLinkConfig) -> int:
    """Run until a signal ends it, and answer the exit status.

    The first SIGINT or SIGTERM stops gracefully, the second at once; SIGHUP is for reloading.
    Every error is in the log. The process is expected to end with that status, and keeps minding
    signals until it has.

    `runner` imports and answers what to run.
    """
    signals = _Signals()
    signals.mind()
    import trio

    signals.status = trio.run(_run, runner, config, signals)
    return signals.exit_status()


class _Wish(enum.Enum):
    """What a signal asks for."""

    STOP = enum.auto()
    HURRY = enum.auto()
    RELOAD = enum.auto()
    NOTHING = enum.auto()


class _Signals:
    """The signals of this process, from its first moments to its very last.

    Importing takes most of the first moments, and Python's own end, after the last line of any
    program, a tenth of a second: it would give the signals back first, and die of the next one.
    """

    def __init__(self) -> None:
        self.unheeded: list[int] = []
        """What came before there was a Trio run, or after it."""
        self.status: int | None = None
        """What the run came to."""
        self._stopping = False
        self._forced = 0

    def mind(self) -> None:
        """Take the signals, and never give them back."""
        for number in _SIGNALS:
            signal.signal(number, lambda number, _: self.unheeded.append(number))
        # Registered before nearly everything is imported, so that it comes last.
        atexit.register(self._end)

    def meaning(self, number: int) -> _Wish:
        """Answer what a signal asks for, after those before it."""
        if number == signal.SIGHUP:
            return _Wish.NOTHING if self._stopping else _Wish.RELOAD
        if not self._stopping:
            self._stopping = True
            return _Wish.STOP
        self._forced = self._forced or 128 + number
        return _Wish.HURRY

    def exit_status(self) -> int:
        """Answer what the run came to, unless a second signal was to end it."""
        while self.unheeded:
            self.meaning(self.unheeded.pop(0))
        return self._forced or self.status or OK

    def _end(self) -> None:
        """Leave without Python's own end: threads have ended, and others' exit functions ran."""
        if self.status is None:
            return  # an error that is not ours to hide
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(self.exit_status())


async def _run(runner: Callable[[], Runner], config: SuperLinkConfig, signals: _Signals) -> int:
    import trio

    from superlink_trio.supervision import Control

    status = OK
    with trio.open_signal_receiver(*_SIGNALS) as received:
        async with trio.open_nursery() as nursery:
            steering = _Steering(nursery, signals, Control())
            for number in signals.unheeded:
                steering.heed(number)
            signals.unheeded.clear()
            nursery.start_soon(_heed_all, received, steering)
            await trio.lowlevel.checkpoint()
            try:
                # If there was a signal already, nothing is even imported.
                if not steering.control.stopping.is_set():
                    await runner()(config, control=steering.control, task_status=steering)
            except Exception as error:
                status = _report(error, steering.link)
            nursery.cancel_scope.cancel()
    return status


async def _heed_all(received: AsyncIterator[int], steering: _Steering) -> None:
    async for number in received:
        steering.heed(number)


class _Steering:
    """Asks the SuperLink for what the signals mean, whether it is ready yet or not."""

    def __init__(self, nursery: trio.Nursery, signals: _Signals, control: Control) -> None:
        self.control = control
        self.link: Link | None = None
        self._nursery = nursery
        self._signals = signals
        self._reload_once_ready = False

    def started(self, value: Link | None = None) -> None:
        """Be told that the SuperLink is ready (this is the `task_status` it gets)."""
        if value is None:
            raise TypeError("the runner has to say what it runs")
        self.link = value
        addresses = {
            "driver": value.driver_address,
            "fleet": value.fleet_address,
            "flower": value.flower_address,
        }
        ports = [f"{_PORTS[name]} on {address}" for name, address in addresses.items() if address]
        _log.info(
            "ready: %s",
            ", ".join(ports) or "no port is open",
            extra={
                f"{name}_address": None if address is None else str(address)
                for name, address in addresses.items()
            },
        )
        if self._reload_once_ready:
            self._nursery.start_soon(value.reload)

    def heed(self, number: int) -> None:
        """Act on a signal."""
        name = signal.Signals(number).name
        match self._signals.meaning(number):
            case _Wish.STOP:
                _log.info("%s: stopping; a second signal stops at once", name)
                self.control.stop()
            case _Wish.HURRY:
                _log.warning("%s: stopping at once", name)
                self.control.cancel()
            case _Wish.RELOAD:
                _log.info("%s: reading keys and certificates again", name)
                if self.link is None:
                    # Whatever the start has read of them may be old by now.
                    self._reload_once_ready = True
                else:
                    self._nursery.start_soon(self.link.reload)
            case _Wish.NOTHING:
                _log.info("%s: nothing is read again, it is stopping", name)


def _report(error: Exception, link: Link | None) -> int:
    """Log what ended the SuperLink and answer the exit status."""
    if link is not None:
        _log.critical("a part failed beyond repair", exc_info=error)
        return FAILED
    group = error if isinstance(error, ExceptionGroup) else ExceptionGroup("", [error])
    expected, bugs = group.split((OSError, ConfigError, CannotStart))
    for cause in leaves(expected):
        details = cause.details if isinstance(cause, CannotStart) else ""
        extra = {"exception": details} if details else {}
        _log.error("could not start: %s", described(cause), extra=extra)
    if bugs is not None:
        _log.critical("could not start", exc_info=bugs if group is error else error)
    return USAGE if all(isinstance(leaf, ConfigError) for leaf in leaves(group)) else FAILED
