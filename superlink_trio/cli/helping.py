"""The screen that `--help` shows; `--help-all` has everything."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Mapping

from superlink_trio.cli.programs import Program
from superlink_trio.config import Option

SOURCES = (
    "Every option can also come from the environment variable named after it, or from the file "
    "that --config names (TOML, the options' names as keys). The command line wins, then the "
    "environment, then the file. A variable that holds several words is split as a shell does. "
    "Addresses are host:port or [IPv6]:port; port 0 picks a free one."
)

_EXAMPLES = """
examples:
  {program} --insecure --database state.db
  {program} check --config superlink.toml
"""

_MORE = """
--help-all lists every option, with its default and its environment variable.
"""
_SERVING = "--print-config shows the value of each, and where it is from. -V: the version.\n"


def overview(program: Program, commands: Mapping[str, str], options: Iterable[Option]) -> str:
    """Write the commands, the options that matter first, and where the rest is."""
    parser = argparse.ArgumentParser(
        prog=program.name,
        usage=f"%(prog)s {'[COMMAND] ' if commands else ''}[options]",
        description=program.about,
        formatter_class=_narrow,
        add_help=False,
    )
    if commands:
        group = parser.add_argument_group("commands")
        for name, what in commands.items():
            group.add_argument(name, help=what)
    group = parser.add_argument_group("options that matter first")
    for option in options:
        words, help = option.kind.metavar, option.help.replace("%", "%%")
        if words:
            group.add_argument(option.flag, nargs=len(words), metavar=words, help=help)
        else:
            group.add_argument(option.flag, action="store_true", help=help)
    examples = _EXAMPLES.format(program=program.name) if commands else ""
    return parser.format_help() + examples + _MORE + (_SERVING if program.serves else "")


def _narrow(prog: str) -> argparse.HelpFormatter:
    # However wide a terminal is, long lines are hard to read.
    width = min(80, shutil.get_terminal_size().columns)
    return argparse.HelpFormatter(prog, max_help_position=28, width=width)
