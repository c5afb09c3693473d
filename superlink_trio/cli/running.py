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
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from superlink_trio.cli.ready import Listening, ready_fields, ready_line
from superlink_trio.cli.systemd import Manager
from superlink_trio.config import CannotStart, ConfigError, SuperLinkConfig
from superlink_trio.logs.wording import described, leaves

if TYPE_CHECKING:
    import trio

    from superlink_trio.supervision import Control

_log = logging.getLogger(__name__)

OK, FAILED, USAGE = 0, 1, 2

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Link(Listening, Protocol):
    """What a running SuperLink can be asked for."""

    async def reload(self, config: SuperLinkConfig | None = None) -> None:
        """Read keys and certificates again, and let what can change of `config` count.

        The log says with what result.
        """


class Runner(Protocol):
    """`run_superlink` and its like."""

    async def __call__(
        self, config: SuperLinkConfig, *, control: Control, task_status: trio.TaskStatus[Link]
    ) -> None:
        """Run until `control` stops it, whether it is ready by then or not."""


Reload: TypeAlias = Callable[[Link], Awaitable[None]]
"""Lets a running SuperLink take what has changed."""


Others: TypeAlias = Callable[[Link], Iterable[int]]
"""Gives the ids of other processes that serve for a running SuperLink."""


async def _keys_and_certificates(link: Link) -> None:
    await link.reload()


def _nobody(_: Link) -> Iterable[int]:
    return ()


def run(
    runner: Callable[[], Runner],
    config: SuperLinkConfig,
    *,
    reload: Reload = _keys_and_certificates,
    others: Others = _nobody,
    manager: Manager | None = None,
) -> int:
    """Run until a signal ends it, and answer the exit status.

    The first SIGINT or SIGTERM stops gracefully, the second at once; SIGHUP is for reloading, and
    SIGQUIT logs every task and where it waits, those of `others` too.
    Every error is in the log. The process is expected to end with that status, and keeps minding
    signals until it has.

    `runner` imports and answers what to run. `manager` hears how it gets on.
    """
    signals = _Signals()
    signals.mind()
    began = time.monotonic()
    import trio

    asked = _Asked(reload, others, manager or Manager())
    try:
        signals.status = trio.run(_run, runner, config, signals, asked)
    finally:
        _say_stopped(signals, began)
    return signals.exit_status()


def _say_stopped(signals: _Signals, began: float) -> None:
    """Log that nothing runs any more, and how long that took since it was asked for."""
    now = time.monotonic()
    took, why = now - began, "after it was started"
    if signals.asked is not None:
        took, why = now - signals.asked, "after the first signal"
    _log.info(
        "stopped, %.1f s %s",
        *(took, why),
        extra={
            "seconds": round(took, 3),
            "uptime_seconds": round(now - began, 3),
            "exit_status": signals.exit_status(),
        },
    )


class _Wish(enum.Enum):
    """What a signal asks for."""

    STOP = enum.auto()
    HURRY = enum.auto()
    RELOAD = enum.auto()
    TELL = enum.auto()
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
        self.asked: float | None = None
        """When the first signal to stop came, by the monotonic clock."""
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
        if number == signal.SIGQUIT:
            return _Wish.TELL
        if number == signal.SIGHUP:
            return _Wish.NOTHING if self._stopping else _Wish.RELOAD
        if not self._stopping:
            self._stopping = True
            self.asked = time.monotonic()
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


class _Asked(NamedTuple):
    """What is asked for on behalf of a SuperLink."""

    reload: Reload
    others: Others
    manager: Manager


async def _run(
    runner: Callable[[], Runner], config: SuperLinkConfig, signals: _Signals, asked: _Asked
) -> int:
    import trio

    from superlink_trio.supervision import Control

    status = OK
    with trio.open_signal_receiver(*_SIGNALS) as received:
        async with trio.open_nursery() as nursery:
            steering = _Steering(config, nursery, signals, Control(), asked)
            for number in signals.unheeded:
                steering.heed(number)
            signals.unheeded.clear()
            nursery.start_soon(_heed_all, received, steering)
            nursery.start_soon(asked.manager.feed)
            await trio.lowlevel.checkpoint()
            try:
                # If there was a signal already, nothing is even imported.
                if not steering.control.stopping.is_set():
                    await runner()(config, control=steering.control, task_status=steering)
            except Exception as error:
                status = _report(error, steering.link)
                asked.manager.status(f"failed: {'; '.join(map(described, leaves(error)))}")
            nursery.cancel_scope.cancel()
    return status


async def _heed_all(received: AsyncIterator[int], steering: _Steering) -> None:
    async for number in received:
        steering.heed(number)


class _Steering:
    """Asks the SuperLink for what the signals mean, whether it is ready yet or not."""

    def __init__(
        self,
        config: SuperLinkConfig,
        nursery: trio.Nursery,
        signals: _Signals,
        control: Control,
        asked: _Asked,
    ) -> None:
        import trio

        self.control = control
        self._config = config
        self.link: Link | None = None
        self._reload, self._others, self._manager = asked
        self._reloading = trio.Lock()
        self._ready = ""
        self._nursery = nursery
        self._signals = signals
        self._reload_once_ready = False

    def started(self, value: Link | None = None) -> None:
        """Be told that the SuperLink is ready (this is the `task_status` it gets)."""
        if value is None:
            raise TypeError("the runner has to say what it runs")
        self.link = value
        self._ready = ready_line(self._config, value)
        _log.info(self._ready, extra=ready_fields(self._config, value))
        self._say_ready()
        if self._reload_once_ready:
            self._nursery.start_soon(self._reload_all, value)

    def heed(self, number: int) -> None:
        """Act on a signal."""
        name = signal.Signals(number).name
        match self._signals.meaning(number):
            case _Wish.STOP:
                _log.info("%s: stopping; a second signal stops at once", name)
                self._manager.stopping()
                self.control.stop()
            case _Wish.HURRY:
                _log.warning("%s: stopping at once", name)
                self.control.cancel()
            case _Wish.RELOAD:
                _log.info("%s: reading options, keys and certificates again", name)
                if self.link is None:
                    # Whatever the start has read of them may be old by now.
                    self._reload_once_ready = True
                else:
                    self._nursery.start_soon(self._reload_all, self.link)
            case _Wish.TELL:
                # Loud enough for any log that an operator who asks would look at.
                tasks = {"exception": _tasks()}  # the field of several lines
                _log.warning("%s: the tasks, and where they wait", name, extra=tasks)
                for pid in () if self.link is None else self._others(self.link):
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
            case _Wish.NOTHING:
                _log.info("%s: nothing is read again, it is stopping", name)

    async def _reload_all(self, link: Link) -> None:
        async with self._reloading:
            self._manager.reloading()
            await self._reload(link)
            self._say_ready()

    def _say_ready(self) -> None:
        if not self.control.stopping.is_set():
            self._manager.ready(self._ready)


def _tasks() -> str:
    from superlink_trio.supervision import task_tree

    return task_tree()


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
