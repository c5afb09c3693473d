"""The programs: `superlink-trio`, and `driver-api` and `fleet-api` that run one side each.

`backup`, `inspect`, `status` and `probe`, which run nothing, are in `tools`.

This is the only place that knows argparse. Whatever is slow to import waits until it is needed, so
that `--help` and a faulty command line answer at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from superlink_trio import __version__
from superlink_trio.cli.running import USAGE, Runner, run
from superlink_trio.config import (
    OPTIONS,
    Apis,
    Option,
    Settings,
    SuperLinkConfig,
    Table,
    build,
    read_sources,
)
from superlink_trio.config.reading import did_you_mean, suggestion

if TYPE_CHECKING:
    from superlink_trio.logs.live import Terminal
    from superlink_trio.simulation.progress import Display

_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Program:
    """A command."""

    name: str
    apis: Apis
    about: str
    runner: Callable[[Display | None], Runner]
    """Imports what runs it; the display is for a simulation."""

    def has(self, option: Option) -> bool:
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
    "backup and inspect work on a database file; status and probe ask a SuperLink that runs.",
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
_TOOLS = ("backup", "inspect", "status", "probe")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a SuperLink, or one side of it, and answer the exit status.

    `argv` is the command line without the program's name, `sys.argv` by default.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in _COMMANDS:
        return _main(_COMMANDS[argv[0]], argv[1:])
    if argv and argv[0] in _TOOLS:
        from superlink_trio.cli import tools

        return tools.COMMANDS[argv[0]](argv[1:])
    return _main(SUPERLINK, argv)


def driver_api() -> int:
    """Run the Driver API alone and answer the exit status."""
    return _main(DRIVER_API, sys.argv[1:])


def fleet_api() -> int:
    """Run the Fleet API alone and answer the exit status."""
    return _main(FLEET_API, sys.argv[1:])


def _main(program: Program, argv: Sequence[str]) -> int:
    settings = read(program, argv)
    config = build(settings, program.apis)
    if settings.faults:
        for fault in settings.faults:
            sys.stderr.write(f"{program.name}: error: {fault}\n")
        sys.stderr.write(f"{program.name}: nothing was started; --help lists the options\n")
        return USAGE

    from superlink_trio.logs import rendering

    terminal = _terminal(settings, config)
    rendering.configure(
        settings.get("log_level") or "info", settings.get("log_format") or "text", terminal
    )
    for warning in settings.warnings:
        _log.warning(warning)
    display = None if terminal is None else _display(terminal)
    return run(partial(program.runner, display), config)


def _terminal(settings: Settings, config: SuperLinkConfig) -> Terminal | None:
    """Give the terminal where a simulation is watched, None where there is nobody to watch."""
    if config.fleet_api_type != "vce" or settings.get("log_format") == "json":
        return None
    if not sys.stderr.isatty() or os.environ.get("TERM") in (None, "dumb", "unknown"):
        return None
    # What draws takes a tenth of a second to import.
    from superlink_trio.logs.live import Terminal

    return Terminal(sys.stderr)


def _display(terminal: Terminal) -> Display:
    from superlink_trio.simulation.display import show

    return partial(show, terminal)


def read(program: Program, argv: Sequence[str], table: Table = OPTIONS) -> Settings:
    """Collect what the command line, the environment and the file say, and every fault in it.

    `--help` and `--version` raise SystemExit.
    """
    settings = Settings(table)
    parser = _parser(program, table)
    namespace = argparse.Namespace()
    try:
        _, unknown = parser.parse_known_args(argv, namespace)
    except (_UsageError, argparse.ArgumentError) as error:
        # What came after the fault was not read, so nothing is certain about any option.
        settings.fault(str(error), *table.options)
        unknown = []
    _refuse_unknown(settings, program, unknown)
    read_sources(settings, vars(namespace), os.environ)
    return settings


def _refuse_unknown(settings: Settings, program: Program, argv: Sequence[str]) -> None:
    options = settings.table.options.values()
    flags = {option.flag: option.name for option in options if program.has(option)}
    after_option = False
    for word in argv:
        if word.startswith("-"):
            after_option = True
            flag = word.partition("=")[0]
            meant = suggestion(flag, flags)
            hint = did_you_mean(meant)
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


def _parser(program: Program, table: Table) -> argparse.ArgumentParser:
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
    for section, options in table.by_section():
        group = parser.add_argument_group(section.value)
        for option in filter(program.has, options):
            group.add_argument(option.flag, help=_help(option), **_action(option))
    return parser


def _help(option: Option) -> str:
    default = f"default: {option.default}; " if option.default else ""
    return f"{option.help} [{default}{option.variable}]".replace("%", "%%")


def _action(option: Option) -> dict[str, Any]:
    metavar = option.kind.metavar
    if not metavar:
        return {
            "action": argparse.BooleanOptionalAction if option.negatable else "store_true",
            "default": argparse.SUPPRESS,
        }
    return {"nargs": len(metavar), "metavar": metavar}
