"""What a shell needs to complete commands and options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

import shtab

from superlink_trio.cli import probe, status, tools
from superlink_trio.cli.arguments import fill
from superlink_trio.cli.programs import COMMANDS, SIDES, SUPERLINK, checking
from superlink_trio.config import Option

_PATHS = {"file": shtab.FILE, "directory": shtab.DIRECTORY}


def completion(argv: Sequence[str]) -> int:
    """Run `superlink-trio completion` and answer the exit status."""
    parser = argparse.ArgumentParser(prog=f"{SUPERLINK.name} completion")
    fill_completion(parser)
    sys.stdout.write(shtab.complete(everything(), parser.parse_args(argv).shell))
    return 0


def fill_completion(parser: argparse.ArgumentParser) -> None:
    """Let a parser take what `superlink-trio completion` takes."""
    parser.description = f"Write what a shell needs to complete what follows {SUPERLINK.name}."
    parser.epilog = (
        "bash: write it to ~/.local/share/bash-completion/completions/superlink-trio; "
        "zsh: to a file _superlink-trio in a folder of $fpath."
    )
    parser.add_argument("shell", choices=("bash", "zsh"))


def everything() -> argparse.ArgumentParser:
    """Make a parser of all commands and their options, for shells to complete."""
    parser = argparse.ArgumentParser(prog=SUPERLINK.name, add_help=False)
    _complete(fill(parser, SUPERLINK))
    commands = parser.add_subparsers(title="commands")
    for name, about in COMMANDS.items():
        command = commands.add_parser(name, help=about, add_help=name not in (*SIDES, "check"))
        match name:
            case "driver-api" | "fleet-api":
                _complete(fill(command, SIDES[name]))
            case "check":
                _complete(fill(command, checking(SUPERLINK)))
            case "backup":
                tools.fill_backup(command)
            case "inspect":
                tools.fill_inspect(command)
            case "status":
                status.fill_status(command)
            case "probe":
                probe.fill_probe(command)
            case "completion":
                fill_completion(command)
            case "help":
                command.add_argument("command", choices=tuple(COMMANDS))
    return parser


def _complete(actions: Iterable[tuple[Option, argparse.Action]]) -> None:
    for option, action in actions:
        if option.kind.choices:
            action.choices = option.kind.choices
        if option.kind.path:
            action.complete = _PATHS[option.kind.path]  # type: ignore[attr-defined]  # shtab's
