"""The programs: `superlink-trio`, and `driver-api` and `fleet-api` that run one side each.

`backup` and `inspect`, which run nothing, are in `tools`.

This is the only place that knows argparse, owns signals and decides an exit status. Whatever is
slow to import waits until it is needed, so that `--help` and a faulty command line answer at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import attrs

from superlink_trio import __version__, options
from superlink_trio.address import Address
from superlink_trio.config import Apis, CannotStart, ConfigError, SuperLinkConfig

if TYPE_CHECKING:
    import trio

    from superlink_trio.fleet.simulation.progress import Display
    from superlink_trio.live import Terminal

logger = logging.getLogger(__name__)

OK, FAILED, USAGE = 0, 1, 2

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Link(Protocol):
    """What a running SuperLink can be asked for."""

    @property
    def driver_address(self) -> Address | None:
        """Where the Driver API listens, if it runs here."""

    @property
    def fleet_address(self) -> Address | None:
        """Where the Fleet API listens, if it runs here and has a port."""

    async def stop(self) -> None:
        """Stop gracefully and wait for the end."""

    def cancel(self) -> None:
        """Stop now: nothing gets any more grace."""

    async def reload(self) -> None:
        """Read keys and certificates again; the log says with what result."""


class Runner(Protocol):
    """`run_superlink` and its like."""

    async def __call__(
        self, config: SuperLinkConfig, *, task_status: trio.TaskStatus[Link]
    ) -> None:
        """Run until stopped; a cancellation is a graceful stop."""


@attrs.frozen(kw_only=True)
class Program:
    """A command."""

    name: str
    apis: Apis
    about: str
    runner: Callable[[Display | None], Runner]
    """Imports what runs it; the display is for a simulation."""

    def has(self, option: options.Option) -> bool:
        """Whether the command line of this program takes the option."""
        return bool(option.apis & self.apis)


def _superlink(display: Display | None) -> Runner:
    from superlink_trio.superlink import run_superlink

    return partial(run_superlink, display=display)


def _driver_api(_: Display | None) -> Runner:
    from superlink_trio.superlink import run_driver_api

    return run_driver_api


def _fleet_api(display: Display | None) -> Runner:
    from superlink_trio.superlink import run_fleet_api

    return partial(run_fleet_api, display=display)


SUPERLINK = Program(
    name="superlink-trio",
    apis=Apis.BOTH,
    about="Run a SuperLink: the Driver API and the Fleet API in one process. "
    "The commands driver-api and fleet-api run one of them each, over a shared database; "
    "backup and inspect work on a database file.",
    runner=_superlink,
)
DRIVER_API = Program(
    name="superlink-trio driver-api",
    apis=Apis.DRIVER,
    about="Run the Driver API alone; the Fleet API runs elsewhere, over the same database.",
    runner=_driver_api,
)
FLEET_API = Program(
    name="superlink-trio fleet-api",
    apis=Apis.FLEET,
    about="Run the Fleet API alone; the Driver API runs elsewhere, over the same database.",
    runner=_fleet_api,
)
_COMMANDS = {"driver-api": DRIVER_API, "fleet-api": FLEET_API}
_TOOLS = ("backup", "inspect")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a SuperLink, or one side of it, and answer the exit status.

    `argv` is the command line without the program's name, `sys.argv` by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in _COMMANDS:
        return _main(_COMMANDS[words[0]], words[1:])
    if words and words[0] in _TOOLS:
        from superlink_trio import tools

        return tools.COMMANDS[words[0]](words[1:])
    return _main(SUPERLINK, words)


def driver_api() -> int:
    """Run the Driver API alone and answer the exit status."""
    return _main(DRIVER_API, sys.argv[1:])


def fleet_api() -> int:
    """Run the Fleet API alone and answer the exit status."""
    return _main(FLEET_API, sys.argv[1:])


def _main(program: Program, words: Sequence[str]) -> int:
    settings = read(program, words)
    config = options.build(settings, program.apis)
    if settings.faults:
        for fault in settings.faults:
            sys.stderr.write(f"{program.name}: error: {fault}\n")
        sys.stderr.write(f"{program.name}: nothing was started; --help lists the options\n")
        return USAGE

    from superlink_trio import log

    terminal = _terminal(settings, config)
    log.configure(
        settings.get("log_level") or "info", settings.get("log_format") or "text", terminal
    )
    for warning in settings.warnings:
        logger.warning(warning)
    display = None if terminal is None else terminal.show
    return run(partial(program.runner, display), config)


def _terminal(settings: options.Settings, config: SuperLinkConfig) -> Terminal | None:
    """Give the terminal where a simulation is watched, None where there is nobody to watch."""
    if config.fleet_api_type != "vce" or settings.get("log_format") == "json":
        return None
    if not sys.stderr.isatty() or os.environ.get("TERM") in (None, "dumb", "unknown"):
        return None
    # What draws takes a tenth of a second to import.
    from superlink_trio.live import Terminal

    return Terminal(sys.stderr)


def read(program: Program, words: Sequence[str]) -> options.Settings:
    """Collect what the command line, the environment and the file say, and every fault in it.

    `--help` and `--version` raise SystemExit.
    """
    settings = options.Settings()
    parser = _parser(program)
    namespace = argparse.Namespace()
    try:
        _, unknown = parser.parse_known_args(words, namespace)
    except (_UsageError, argparse.ArgumentError) as error:
        # What came after the fault was not read, so nothing is certain about any option.
        settings.fault(str(error), *options.OPTIONS)
        unknown = []
    _refuse_unknown(settings, program, unknown)
    options.read_command_line(settings, vars(namespace))
    options.read_environment(settings, os.environ)
    if "config" in settings.given:
        options.read_file(settings, settings.get("config"))
    options.fold(settings)
    return settings


def _refuse_unknown(settings: options.Settings, program: Program, words: Sequence[str]) -> None:
    flags = {option.flag: name for name, option in options.OPTIONS.items() if program.has(option)}
    after_option = False
    for word in words:
        if word.startswith("-"):
            after_option = True
            flag = word.partition("=")[0]
            meant = options.suggestion(flag, flags)
            hint = options.did_you_mean(meant)
            settings.fault(f"{flag}: no such option{hint}", *([flags[meant]] if meant else []))
        elif word in (*_COMMANDS, *_TOOLS):
            settings.fault(f"{word}: a command comes first, before every option")
        elif not after_option:
            settings.fault(f"{word}: unexpected, options begin with --")


class _UsageError(Exception):
    pass


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UsageError(message)


def _parser(program: Program) -> argparse.ArgumentParser:
    commands = f"[{' | '.join((*_COMMANDS, *_TOOLS))}] " if program is SUPERLINK else ""
    parser = _Parser(
        prog=program.name,
        usage=f"%(prog)s {commands}[options]",
        description=program.about,
        epilog="Every option can also come from the environment variable named after it, or from "
        "the file that --config names (TOML, the options' names as keys). The command line wins, "
        "then the environment, then the file. A variable that holds several words is split as a "
        "shell does. Addresses are host:port or [IPv6]:port; port 0 picks a free one.",
        allow_abbrev=False,
        exit_on_error=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--version", action="version", version=f"superlink-trio {__version__}")
    for title, group in options.GROUPS.items():
        section = parser.add_argument_group(title)
        for option in filter(program.has, group):
            section.add_argument(option.flag, help=_help(option), **_action(option))
    return parser


def _help(option: options.Option) -> str:
    default = f"default: {option.default}; " if option.default else ""
    return f"{option.help} [{default}{option.variable}]".replace("%", "%%")


def _action(option: options.Option) -> dict[str, Any]:
    metavar = option.kind.metavar
    if not metavar:
        return {
            "action": argparse.BooleanOptionalAction if option.negatable else "store_true",
            "default": argparse.SUPPRESS,
        }
    return {"nargs": len(metavar), "metavar": metavar}


def run(runner: Callable[[], Runner], config: SuperLinkConfig) -> int:
    """Run until a signal ends it, and answer the exit status.

    The first SIGINT or SIGTERM stops gracefully, the second at once; SIGHUP is for reloading.
    Every error is in the log.

    `runner` imports and answers what to run.
    """
    with _remembered_signals() as early:
        import trio

        return trio.run(_run, runner, config, early)


@contextmanager
def _remembered_signals() -> Iterator[list[int]]:
    """Keep the signals of the first moments, in which importing takes most of the time."""
    early: list[int] = []
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        signal.signal(number, lambda number, _: early.append(number))
    try:
        yield early
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _run(runner: Callable[[], Runner], config: SuperLinkConfig, early: list[int]) -> int:
    import trio

    status = OK
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            control = _Control(nursery, trio.CancelScope())
            for number in early:
                control.heed(number)
            nursery.start_soon(_heed_all, signals, control)
            try:
                with control.scope:
                    # If there was a signal already, nothing is even imported.
                    await trio.lowlevel.checkpoint()
                    await runner()(config, task_status=control)
            except Exception as error:
                status = _report(error, control.link)
            nursery.cancel_scope.cancel()
    return control.forced or status


async def _heed_all(signals: AsyncIterator[int], control: _Control) -> None:
    async for number in signals:
        control.heed(number)


class _Control:
    """Asks the SuperLink for what the signals mean, whether it is ready yet or not."""

    def __init__(self, nursery: trio.Nursery, scope: trio.CancelScope) -> None:
        self.scope = scope
        self.link: Link | None = None
        self.forced = 0
        self._nursery = nursery
        self._stopping = False
        self._reload_once_ready = False

    def started(self, value: Link | None = None) -> None:
        """Be told that the SuperLink is ready (this is the `task_status` it gets)."""
        if value is None:
            raise TypeError("the runner has to say how it can be stopped")
        self.link = value
        driver, fleet = value.driver_address, value.fleet_address
        ports = [
            f"{api} on {address}"
            for api, address in (("Driver API", driver), ("Fleet API", fleet))
            if address is not None
        ]
        logger.info(
            "ready: %s",
            ", ".join(ports) or "no port is open",
            extra={
                "driver_address": None if driver is None else str(driver),
                "fleet_address": None if fleet is None else str(fleet),
            },
        )
        if self._reload_once_ready:
            self._nursery.start_soon(value.reload)

    def heed(self, number: int) -> None:
        """Act on a signal."""
        name = signal.Signals(number).name
        if number == signal.SIGHUP:
            logger.info("%s: reading keys and certificates again", name)
            if self.link is None:
                # Whatever the start has read of them may be old by now.
                self._reload_once_ready = True
            else:
                self._nursery.start_soon(self.link.reload)
        elif not self._stopping:
            self._stopping = True
            logger.info("%s: stopping; a second signal stops at once", name)
            if self.link is None:
                self.scope.cancel()
            else:
                self._nursery.start_soon(self.link.stop)
        else:
            self.forced = 128 + number
            logger.warning("%s: stopping at once", name)
            if self.link is not None:
                self.link.cancel()


def _report(error: Exception, link: Link | None) -> int:
    """Log what ended the SuperLink and answer the exit status."""
    if link is not None:
        logger.critical("a part failed beyond repair", exc_info=error)
        return FAILED
    group = error if isinstance(error, ExceptionGroup) else ExceptionGroup("", [error])
    expected, bugs = group.split((OSError, ConfigError, CannotStart))
    for cause in _leaves(expected):
        details = cause.details if isinstance(cause, CannotStart) else ""
        words = "; ".join([_words(cause), *_notes(cause)])
        extra = {"exception": details} if details else {}
        logger.error("could not start: %s", words, extra=extra)
    if bugs is not None:
        logger.critical("could not start", exc_info=bugs if group is error else error)
    return USAGE if all(isinstance(leaf, ConfigError) for leaf in _leaves(group)) else FAILED


def _leaves(error: Exception | None) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    elif error is not None:
        yield error


def _words(error: Exception) -> str:
    """Answer what an error says, without the number of an errno."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _notes(error: Exception) -> list[str]:
    return getattr(error, "__notes__", [])
