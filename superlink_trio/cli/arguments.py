"""Reading a command line that configures a program, and explaining it.

This is where options meet argparse.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from superlink_trio import __version__
from superlink_trio.cli.helping import SOURCES, overview
from superlink_trio.cli.programs import COMMANDS, SUPERLINK, Program
from superlink_trio.config import OPTIONS, Option, Settings, Table, read_sources
from superlink_trio.config.reading import did_you_mean, suggestion

PRINT_CONFIG = "--print-config"


def read(program: Program, argv: Sequence[str], table: Table = OPTIONS) -> Settings:
    """Collect what the command line, the environment and the file say, and every fault in it.

    `--help` and its like raise SystemExit.
    """
    settings = Settings(table)
    parser = _Parser(prog=program.name)
    fill(parser, program, table)
    namespace = argparse.Namespace()
    try:
        _, unknown = parser.parse_known_args(argv, namespace)
    except (_UsageError, argparse.ArgumentError) as error:
        # What came after the fault was not read, so nothing is certain about any option.
        settings.fault(str(error), *table.options)
        unknown = []
    _refuse_unknown(settings, program, unknown)
    given = {name: words for name, words in vars(namespace).items() if name in table.options}
    read_sources(settings, given, os.environ)
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
        elif word in COMMANDS:
            settings.fault(f"{word}: a command comes first, before every option")
        elif not after_option:
            settings.fault(f"{word}: unexpected, options begin with --")


class _UsageError(Exception):
    pass


class _Parser(argparse.ArgumentParser):
    def __init__(self, prog: str) -> None:
        super().__init__(
            prog=prog,
            add_help=False,
            allow_abbrev=False,
            exit_on_error=False,
            argument_default=argparse.SUPPRESS,
        )

    def error(self, message: str) -> NoReturn:
        raise _UsageError(message)


class _Show(argparse.Action):
    """Print a text and leave."""

    def __init__(self, *, text: Callable[[], str], **others: Any) -> None:
        super().__init__(nargs=0, **others)
        self._text = text

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        sys.stdout.write(self._text())
        parser.exit()


def fill(
    parser: argparse.ArgumentParser, program: Program, table: Table = OPTIONS
) -> Sequence[tuple[Option, argparse.Action]]:
    """Let a parser take all that a program takes, and answer the actions of its options."""
    commands = COMMANDS if program is SUPERLINK else {}
    parser.usage = f"%(prog)s {'[COMMAND] ' if commands else ''}[options]"
    listed = f" Commands: {', '.join(commands)}; --help says what for." if commands else ""
    parser.description, parser.epilog = program.about + listed, SOURCES
    common = [option for option in table.options.values() if option.common and program.has(option)]
    short = partial(overview, program, commands, common)
    show = partial(parser.add_argument, action=_Show, dest=argparse.SUPPRESS)
    show("-h", "--help", text=short, help="one screen of help")
    show("--help-all", text=parser.format_help, help="this: every option")
    show("-V", "--version", text=lambda: f"superlink-trio {__version__}\n", help="the version")
    if program.serves:
        parser.add_argument(
            PRINT_CONFIG,
            action="store_true",
            help="show every option with its value and where it is from, as a TOML file, and "
            "start nothing",
        )
    actions = []
    for section, options in table.by_section():
        group = parser.add_argument_group(section.value)
        for option in filter(program.has, options):
            actions.append((option, group.add_argument(option.flag, **_arguments(option))))
    return actions


def _arguments(option: Option) -> dict[str, Any]:
    default = f"default: {option.default}; " if option.default else ""
    help = f"{option.help} [{default}{option.variable}]".replace("%", "%%")
    metavar = option.kind.metavar
    if metavar:
        return {"nargs": len(metavar), "metavar": metavar, "help": help}
    action = argparse.BooleanOptionalAction if option.negatable else "store_true"
    return {"action": action, "default": argparse.SUPPRESS, "help": help}
