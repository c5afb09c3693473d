"""What is in a database file, counted."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress

import attrs

from superlink_trio.state.interface import CannotOpen
from superlink_trio.state.rules import Phase
from superlink_trio.state.sqlite import presence, schema, sweeping
from superlink_trio.state.sqlite.backup import read_only
from superlink_trio.state.sqlite.faults import in_words

STATES = ("queued", "under way", "handed over", "answered", "out of time")

# The first that holds is the state of a task.
_STATE = f"""CASE
    WHEN answer_id IS NOT NULL THEN 'answered' WHEN expires_at <= :now THEN 'out of time'
    WHEN phase = {Phase.QUEUED} THEN 'queued' WHEN phase = {Phase.UNDER_WAY} THEN 'under way'
    ELSE 'handed over' END"""


@attrs.frozen
class Tasks:
    """How many tasks are in one state, and how old the oldest is, in seconds."""

    count: int
    oldest: float


@attrs.frozen
class Stored:
    """A number of contents and their bytes."""

    count: int
    size: int


@attrs.frozen(kw_only=True)
class RunReport:
    """One run. `tasks` counts them by their state."""

    run_id: int
    fab_id: str
    fab_version: str
    tasks: Mapping[str, int]


@attrs.frozen(kw_only=True)
class Report:
    """What is in a file. Sizes are bytes."""

    database: str
    schema: int
    size: int
    log_size: int
    free: int
    processes: int
    nodes: int
    nodes_online: int
    tasks: Mapping[str, Tasks]
    payloads: Stored
    answers: Stored
    bundles: Stored
    runs: Sequence[RunReport]


def report(database: str, now: float) -> Report:
    """Count what is in a file, which may be in use. `now`: Unix seconds. Raises CannotOpen."""
    try:
        with closing(read_only(database)) as connection:
            connection.execute("BEGIN")
            return _report(connection, database, now)
    except sqlite3.Error as error:
        raise CannotOpen(in_words(error, database) or f"{database}: {error}") from error


def _report(connection: sqlite3.Connection, database: str, now: float) -> Report:
    def number(query: str) -> int:
        return int(connection.execute(query, {"now": now}).fetchone()[0] or 0)

    def stored(table: str, column: str) -> Stored:
        size = number(f"SELECT sum(length({column})) FROM {table}")
        return Stored(number(f"SELECT count(*) FROM {table}"), size)

    log_size = 0
    with suppress(FileNotFoundError):
        log_size = os.path.getsize(f"{database}-wal")
    processes = [
        name for _, name in sweeping.others(connection, 0) if presence.is_alive(database, name)
    ]
    return Report(
        database=database,
        schema=schema.version(connection),
        size=os.path.getsize(database),
        log_size=log_size,
        free=number("PRAGMA freelist_count") * number("PRAGMA page_size"),
        processes=len(processes),
        nodes=number("SELECT count(*) FROM node"),
        nodes_online=number("SELECT count(*) FROM node WHERE online_until > :now"),
        tasks=_tasks(connection, now),
        payloads=stored("superlink_payload", "content"),
        answers=stored("task_res", "recordset"),
        bundles=stored("superlink_fab", "content"),
        runs=_runs(connection, now),
    )


def _tasks(connection: sqlite3.Connection, now: float) -> Mapping[str, Tasks]:
    found = connection.execute(
        f"SELECT {_STATE}, count(*), min(pushed_at) FROM superlink_task"
        f" JOIN task_ins USING (task_id) WHERE collected = {schema.Collected.NO} GROUP BY 1",
        {"now": now},
    )
    return {state: Tasks(count, now - oldest) for state, count, oldest in found}


def _runs(connection: sqlite3.Connection, now: float) -> Sequence[RunReport]:
    tasks: dict[int, dict[str, int]] = {}
    counted = connection.execute(
        f"SELECT run_id, {_STATE}, count(*) FROM superlink_task"
        f" JOIN task_ins USING (task_id) WHERE collected = {schema.Collected.NO} GROUP BY 1, 2",
        {"now": now},
    )
    for run_id, state, count in counted:
        tasks.setdefault(run_id, {})[state] = count
    # The reference's runs have no row of ours, and its older files no such columns.
    found = connection.execute(
        "SELECT run.run_id, coalesce(mine.fab_id, ''), coalesce(mine.fab_version, '')"
        " FROM run LEFT JOIN superlink_run AS mine ON mine.run_id = run.run_id ORDER BY run.rowid"
    )
    return [
        RunReport(
            run_id=run_id, fab_id=fab_id, fab_version=fab_version, tasks=tasks.get(run_id, {})
        )
        for run_id, fab_id, fab_version in found
    ]
