"""The commands that work on a database, whether it is in use or not."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import attrs
import shtab

from superlink_trio.logs.wording import counted, harmless, lasting, sized
from superlink_trio.state import is_postgres, why_not
from superlink_trio.state.census import TaskState
from superlink_trio.state.interface import CannotOpen
from superlink_trio.state.sql.messages.report import PHASES, MessagesReport
from superlink_trio.state.sql.report import Report
from superlink_trio.state.sqlite.backup import back_up
from superlink_trio.state.sqlite.report import FileReport, report


def backup(argv: Sequence[str]) -> int:
    """Run `superlink-trio backup` and answer the exit status."""
    parser = argparse.ArgumentParser(prog="superlink-trio backup")
    fill_backup(parser)
    given = parser.parse_args(argv)
    return _run(parser, lambda: back_up(given.database, given.file))


def inspect(argv: Sequence[str]) -> int:
    """Run `superlink-trio inspect` and answer the exit status."""
    parser = argparse.ArgumentParser(prog="superlink-trio inspect")
    fill_inspect(parser)
    given = parser.parse_args(argv)

    def show() -> None:
        found = _report(given.database)
        text = json.dumps(attrs.asdict(found), indent=2) if given.json else _text(found)
        sys.stdout.write(f"{text}\n")

    return _run(parser, show)


def _report(database: str) -> Report:
    if not is_postgres(database):
        return report(database, time.time())
    refusal = why_not(database)
    if refusal is not None:
        raise CannotOpen(refusal)
    from superlink_trio.state.postgres.report import report as report_postgres  # an extra

    return report_postgres(database)


def fill_backup(parser: argparse.ArgumentParser) -> None:
    """Let a parser take what `superlink-trio backup` takes."""
    parser.description = (
        "Copy a database file as it is at one moment, while it is in use. "
        "The copy can be served like the original."
    )
    _add_path(parser, "database", "the file that --database names", _file)
    _add_path(parser, "file", "the copy; it must not exist yet", _file)


def fill_inspect(parser: argparse.ArgumentParser) -> None:
    """Let a parser take what `superlink-trio inspect` takes."""
    parser.description = (
        "Tell what is in a database: nodes, runs, tasks by state and age, messages, sizes."
    )
    _add_path(parser, "database", "what --database names: a file, or postgresql://...", str)
    parser.add_argument("--json", action="store_true", help="for machines; sizes are bytes")


def _add_path(
    parser: argparse.ArgumentParser, name: str, help: str, kind: Callable[[str], str]
) -> None:
    action = parser.add_argument(name, metavar=name.upper(), help=help, type=kind)
    action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's own


def _file(text: str) -> str:
    if is_postgres(text):
        raise argparse.ArgumentTypeError(f"a file is wanted; {_instead(text)}")
    return text


def _instead(url: str) -> str:
    """Say by which command PostgreSQL makes a copy. No password is told, nor a URL that is none."""
    refusal = why_not(url)
    if refusal is not None:
        return f"PostgreSQL's databases are copied by pg_dump. {refusal}"
    from superlink_trio.state.postgres.server import Server  # an extra

    target = f"--dbname={Server(url, direct=True).conninfo}"
    command = shlex.join(["pg_dump", "--format=custom", "--file=COPY", target])
    return f"PostgreSQL copies a database in use by {command} (it asks for the password)"


def _run(parser: argparse.ArgumentParser, work: Callable[[], None]) -> int:
    try:
        work()
    except CannotOpen as error:
        sys.stderr.write(f"{parser.prog}: error: {error}\n")
        return 1
    return 0


def _text(found: Report) -> str:
    return "\n".join(_lines(found))


def _lines(found: Report) -> Iterator[str]:
    yield f"database   {found.database} (schema {found.schema})"
    more = ""
    if isinstance(found, FileReport):
        more = f", {sized(found.free)} of it free; log {sized(found.log_size)}"
    yield f"size       {sized(found.size)}{more}"
    yield f"served by  {counted(found.processes, 'process', 'processes')}"
    yield f"nodes      {found.nodes}, {found.nodes_online} of them online"
    for name, stored in (
        ("payloads", found.payloads),
        ("answers", found.answers),
        ("bundles", found.bundles),
    ):
        yield f"{name:<10} {stored.count}, {sized(stored.size)}"
    yield ""
    yield f"{'tasks':<14}{'number':>8}  oldest"
    for state, tasks in found.tasks.items():
        oldest = lasting(tasks.oldest) if tasks.count else ""
        yield f"  {state:<12}{tasks.count:>8}  {oldest}"
    yield ""
    yield f"{'run':<22}{'app':<28}" + "".join(f"{state:>13}" for state in TaskState)
    for run in found.runs:
        app = _app(run.fab_id, run.fab_version)
        counts = "".join(f"{run.tasks.get(state, 0):>13}" for state in TaskState)
        yield f"{run.run_id:<22}{app:<28}{counts}"
    messages = found.messages
    if messages is not None and (messages.nodes or messages.runs):
        yield ""
        yield from _lines_of_messages(messages, time.time())


def _app(fab_id: str, fab_version: str) -> str:
    return harmless(" ".join(filter(None, (fab_id, fab_version))))


def _lines_of_messages(found: MessagesReport, now: float) -> Iterator[str]:
    yield "Flower 1.23 and later"
    yield f"nodes      {found.nodes}, {found.nodes_online} of them online"
    yield f"objects    {found.objects.count}, {sized(found.objects.size)}"
    yield ""
    yield f"{'node':<22}{'name':<28}{'state':>13}{'registered by':>15}"
    for node in found.latest_nodes:
        state = "online" if node.online_until > now else "offline"
        registrar = "itself" if node.registered_itself else "operator"
        yield f"{node.node_id:<22}{harmless(node.name):<28}{state:>13}{registrar:>15}"
    if found.nodes > len(found.latest_nodes):
        yield f"and {found.nodes - len(found.latest_nodes)} more"
    yield ""
    yield f"{'run':<22}{'app':<28}{'status':>13}" + "".join(f"{name:>13}" for name in PHASES)
    for run in found.runs:
        app = _app(run.fab_id, run.fab_version)
        counts = "".join(f"{number:>13}" for number in run.messages.values())
        yield f"{run.run_id:<22}{app:<28}{run.status:>13}{counts}"
