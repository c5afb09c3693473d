"""What is in a database file, counted."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress

import attrs

from superlink_trio.state.census import Contents, Counted, TaskState
from superlink_trio.state.durable.heartbeats import Alive
from superlink_trio.state.interface import CannotOpen
from superlink_trio.state.sql import counting, nodes, sweeping
from superlink_trio.state.sqlite import presence, schema
from superlink_trio.state.sqlite.backup import read_only
from superlink_trio.state.sqlite.faults import in_words
from superlink_trio.state.sqlite.messages.report import MessagesReport
from superlink_trio.state.sqlite.messages.report import report as messages_report
from superlink_trio.state.sqlite.transaction import Reading


@attrs.frozen(kw_only=True)
class RunReport:
    """One run. `tasks` counts them by their state."""

    run_id: int
    fab_id: str
    fab_version: str
    tasks: Mapping[TaskState, int]


@attrs.frozen(kw_only=True)
class Report:
    """What is in a file. Sizes are bytes.

    `messages`: of Flower 1.23 and later; None in a file of a release that did not keep any.
    """

    database: str
    schema: int
    size: int
    log_size: int
    free: int
    processes: int
    nodes: int
    nodes_online: int
    tasks: Mapping[TaskState, Counted]
    payloads: Contents
    answers: Contents
    bundles: Contents
    runs: Sequence[RunReport]
    messages: MessagesReport | None


def report(database: str, now: float) -> Report:
    """Count what is in a file, which may be in use. `now`: Unix seconds. Raises CannotOpen."""
    try:
        with closing(read_only(database)) as connection:
            connection.execute("BEGIN")
            return _report(Reading(connection, now=now), database)
    except sqlite3.Error as error:
        raise CannotOpen(in_words(error, database) or f"{database}: {error}") from error


def _report(tx: Reading, database: str) -> Report:
    def contents(table: str, column: str) -> Contents:
        size = tx.value(f"SELECT sum(length({column})) FROM {table}")
        return Contents(counting.count(tx, table), size or 0)

    log_size = 0
    with suppress(FileNotFoundError):
        log_size = os.path.getsize(f"{database}-wal")
    processes = [name for _, name in sweeping.others(tx, 0) if presence.is_alive(database, name)]
    payloads, _ = counting.count_payloads(tx)
    return Report(
        database=database,
        schema=schema.version(tx.connection),
        size=os.path.getsize(database),
        log_size=log_size,
        free=tx.value("PRAGMA freelist_count") * tx.value("PRAGMA page_size"),
        processes=len(processes),
        nodes=counting.count(tx, "node"),
        nodes_online=len(nodes.all_online(tx, Alive())),
        tasks=counting.count_tasks(tx),
        payloads=payloads,
        answers=contents("task_res", "recordset"),
        bundles=contents("superlink_fab", "content"),
        runs=_runs(tx),
        messages=messages_report(tx) if schema.keeps_messages(tx.connection) else None,
    )


def _runs(tx: Reading) -> Sequence[RunReport]:
    tasks = counting.count_tasks_of_runs(tx)
    # The reference's runs have no row of ours, and its older files no such columns.
    found = tx.execute(
        "SELECT run.run_id, coalesce(mine.fab_id, ''), coalesce(mine.fab_version, '')"
        " FROM run LEFT JOIN superlink_run AS mine ON mine.run_id = run.run_id ORDER BY run.rowid"
    )
    return [
        RunReport(
            run_id=run_id, fab_id=fab_id, fab_version=fab_version, tasks=tasks.get(run_id, {})
        )
        for run_id, fab_id, fab_version in found
    ]
