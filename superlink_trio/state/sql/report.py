"""What is in a database, counted for people who look at it from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from superlink_trio.state.census import Contents, Counted, TaskState
from superlink_trio.state.durable.heartbeats import Alive
from superlink_trio.state.sql import counting, nodes
from superlink_trio.state.sql.messages import report as messages
from superlink_trio.state.sql.messages.report import MessagesReport
from superlink_trio.state.sql.transaction import Reading


@attrs.frozen(kw_only=True)
class RunReport:
    """One run. `tasks` counts them by their state."""

    run_id: int
    fab_id: str
    fab_version: str
    tasks: Mapping[TaskState, int]


@attrs.frozen(kw_only=True)
class Report:
    """What is in a database. Sizes are bytes.

    `messages`: of Flower 1.23 and later; None in a file of a release that did not keep any.
    """

    database: str
    schema: int
    size: int
    processes: int
    nodes: int
    nodes_online: int
    tasks: Mapping[TaskState, Counted]
    payloads: Contents
    answers: Contents
    bundles: Contents
    runs: Sequence[RunReport]
    messages: MessagesReport | None


def report(
    tx: Reading,
    *,
    database: str,
    schema: int,
    size: int,
    processes: int,
    row: str,
    keeps_messages: bool = True,
) -> Report:
    """Count what is in a database; `row` is the column that says in which order rows came."""
    payloads, _ = counting.count_payloads(tx)
    return Report(
        database=database,
        schema=schema,
        size=size,
        processes=processes,
        nodes=counting.count(tx, "node"),
        nodes_online=len(nodes.all_online(tx, Alive())),
        tasks=counting.count_tasks(tx),
        payloads=payloads,
        answers=_contents(tx, "task_res", "recordset"),
        bundles=_contents(tx, "superlink_fab", "content"),
        runs=_runs(tx, row),
        messages=messages.report(tx) if keeps_messages else None,
    )


def _contents(tx: Reading, table: str, column: str) -> Contents:
    size = tx.value(f"SELECT sum(length({column})) FROM {table}")
    return Contents(counting.count(tx, table), int(size or 0))


def _runs(tx: Reading, row: str) -> Sequence[RunReport]:
    tasks = counting.count_tasks_of_runs(tx)
    # The reference's runs have no row of ours, and its older files no such columns.
    found = tx.execute(
        "SELECT run.run_id, coalesce(mine.fab_id, ''), coalesce(mine.fab_version, '')"
        f" FROM run LEFT JOIN superlink_run AS mine ON mine.run_id = run.run_id ORDER BY run.{row}"
    ).fetchall()
    return [
        RunReport(
            run_id=run_id, fab_id=fab_id, fab_version=fab_version, tasks=tasks.get(run_id, {})
        )
        for run_id, fab_id, fab_version in found
    ]
