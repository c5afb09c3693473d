"""What is in the database, counted; in a file of an older release too, but for `census`."""

from __future__ import annotations

from collections.abc import Mapping

from superlink_trio.state.census import Census, Contents, Counted, TaskState
from superlink_trio.state.durable.heartbeats import Alive
from superlink_trio.state.rules import Phase
from superlink_trio.state.sql import nodes
from superlink_trio.state.sql.rows import Collected
from superlink_trio.state.sql.transaction import Reading

# As `rules.task_state` says it.
_STATE = f"""CASE
    WHEN answer_id IS NOT NULL THEN '{TaskState.ANSWERED}'
    WHEN expires_at <= ? THEN '{TaskState.OUT_OF_TIME}'
    WHEN phase = {Phase.QUEUED} THEN '{TaskState.QUEUED}'
    WHEN phase = {Phase.UNDER_WAY} THEN '{TaskState.UNDER_WAY}'
    ELSE '{TaskState.HANDED_OVER}' END"""
_HERE = f"collected = {Collected.NO}"


def census(tx: Reading, alive: Alive) -> Census:
    """Count what is in the database."""
    payloads, shared_bytes = count_payloads(tx)
    return Census(
        nodes=count(tx, "node"),
        nodes_online=len(nodes.all_online(tx, alive)),
        runs=count(tx, "run"),
        tasks=count_tasks(tx),
        payloads=payloads,
        shared_bytes=shared_bytes,
        stored_bytes=tx.stored_size(),
    )


def count(tx: Reading, table: str) -> int:
    """Count the rows of a table."""
    return int(tx.value(f"SELECT count(*) FROM {table}"))


def count_tasks(tx: Reading) -> Mapping[TaskState, Counted]:
    """Count the tasks in each state."""
    # Only the first task of each state is looked up in the reference's table, which has its time.
    found = tx.execute(
        "SELECT state, tasks, pushed_at FROM (SELECT min(number) AS number,"
        f" {_STATE} AS state, count(*) AS tasks FROM superlink_task WHERE {_HERE} GROUP BY state)"
        " AS found JOIN superlink_task USING (number) JOIN task_ins USING (task_id)",
        tx.now,
    ).fetchall()
    counted = {TaskState(state): Counted(tasks, tx.now - first) for state, tasks, first in found}
    return {state: counted.get(state, Counted()) for state in TaskState}


def count_tasks_of_runs(tx: Reading) -> Mapping[int, Mapping[TaskState, int]]:
    """Count each run's tasks by their state; a state that none is in is left out."""
    runs: dict[int, dict[TaskState, int]] = {}
    found = tx.execute(
        f"SELECT run_id, {_STATE} AS state, count(*) FROM superlink_task"
        f" JOIN task_ins USING (task_id) WHERE {_HERE} GROUP BY run_id, state",
        tx.now,
    ).fetchall()
    for run_id, state, tasks in found:
        runs.setdefault(run_id, {})[TaskState(state)] = tasks
    return runs


def count_payloads(tx: Reading) -> tuple[Contents, int]:
    """Count the payloads that tasks share, and the bytes that this saves."""
    row = tx.first(
        "SELECT count(*), sum(length(content)), sum(length(content) * (users - 1))"
        " FROM superlink_payload JOIN (SELECT payload_id, count(*) AS users FROM superlink_task"
        " WHERE payload_id IS NOT NULL GROUP BY payload_id) AS used USING (payload_id)"
    )
    assert row is not None, "it has no GROUP BY of its own"
    payloads, size, saved = row
    return Contents(payloads, int(size or 0)), int(saved or 0)
