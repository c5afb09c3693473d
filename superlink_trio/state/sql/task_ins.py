"""Steps from the driver to the nodes.

A payload up to `INLINE` bytes lies in the reference's own column, where the reference finds it.
A larger one lies once in `superlink_payload`, however many tasks carry it.

Who may be handed what is decided by SQL where SQL picks the rows, as `rules.may_be_taken` and
`rules.is_lost` say it. Phases stand in it as numbers: a partial index is used for nothing else.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from superlink_trio.state.durable.engine import ChangeKind, Taken
from superlink_trio.state.interface import MAX_DELIVERIES
from superlink_trio.state.rules import Phase
from superlink_trio.state.sql import nodes, rows, runs
from superlink_trio.state.sql.transaction import LARGE, Reading, Transaction
from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError, timestamp

INLINE = 8 * 1024
"""Bytes up to which sharing a payload would cost more than it saves."""

SMALL = 64 * 1024
"""Bytes up to which a content is read inside the transaction that takes its task."""

_CONTENT = "coalesce(p.content, t.recordset)"
_UNDER_WAY = (
    "FROM superlink_task AS s JOIN task_ins AS t USING (task_id)"
    " LEFT JOIN superlink_payload AS p USING (payload_id)"
    f" WHERE s.task_id = ? AND s.phase = {Phase.UNDER_WAY}"
)


def store(tx: Transaction, tasks: Sequence[Task], digests: Sequence[bytes | None]) -> list[str]:
    """Queue tasks; `digests` are the SHA-256 of those payloads that are shared."""
    known = {run_id: runs.exists(tx, run_id) for run_id in {task.run_id for task in tasks}}
    wanted = [pair for pair in zip(tasks, digests, strict=True) if known[pair[0].run_id]]
    wanted_by = Counter(task.consumer for task, _ in wanted)
    for node_id, unanswered in _unanswered(tx, wanted_by):
        tx.limits.check_queue(node_id, unanswered, wanted_by[node_id])
    tx.limits.check_asked(tx.stored_size(), _needed(tx, wanted))
    _insert(tx, wanted)
    for task, _ in wanted:
        tx.notify(ChangeKind.QUEUED, task.consumer)
    return [task.task_id if known[task.run_id] else "" for task in tasks]


def _unanswered(tx: Transaction, node_ids: Iterable[int]) -> list[tuple[int, int]]:
    """Count the unanswered tasks of nodes, with one query: a push may be for many."""
    return tx.execute(
        "SELECT node_id, coalesce((SELECT tasks FROM superlink_unanswered AS u"
        " WHERE u.node_id = wanted.node_id), 0)"
        " FROM (SELECT CAST(value AS bigint) AS node_id FROM json_each(?) AS value) AS wanted",
        json.dumps(list(node_ids)),
    ).fetchall()


def _needed(tx: Transaction, tasks: Sequence[tuple[Task, bytes | None]]) -> int:
    shared = {digest: task.payload_size for task, digest in tasks if digest is not None}
    new = [size for digest, size in shared.items() if _payload_id(tx, digest) is None]
    return sum(new) + sum(_row_size(task, digest) for task, digest in tasks)


def _row_size(task: Task, digest: bytes | None) -> int:
    return task.size if digest is None else task.size - task.payload_size


def _insert(tx: Transaction, tasks: Sequence[tuple[Task, bytes | None]]) -> None:
    payload_ids = {
        digest: _share(tx, digest, task.content) for task, digest in tasks if digest is not None
    }
    tx.execute_many(
        rows.INSERT.format(table="task_ins"),
        [rows.to_row(task, _inline(task, digest)) for task, digest in tasks],
    )
    tx.execute_many(
        "INSERT INTO superlink_task"
        "(task_id, node_id, phase, expires_at, size, payload_id, code, reason)"
        f" VALUES (?, ?, {Phase.QUEUED}, ?, ?, ?, ?, ?)",
        [
            (
                *(task.task_id, task.consumer, task.pushed_at + task.ttl),
                *(_row_size(task, digest), None if digest is None else payload_ids[digest]),
                *rows.to_columns(task.content),
            )
            for task, digest in tasks
        ],
    )


def _inline(task: Task, digest: bytes | None) -> bytes | None:
    return task.content if isinstance(task.content, bytes) and digest is None else None


def _share(tx: Transaction, digest: bytes, content: bytes | TaskError) -> int:
    payload_id = _payload_id(tx, digest)
    if payload_id is None and isinstance(content, bytes) and len(content) > LARGE:
        tx.insert("superlink_payload", ("digest", "content"), (digest, content))
        payload_id = _payload_id(tx, digest)
    if payload_id is not None:
        return payload_id
    # Another process may be storing an equal one at the same moment.
    return int(
        tx.value(
            "INSERT INTO superlink_payload(digest, content) VALUES (?, ?) ON CONFLICT(digest)"
            " DO UPDATE SET digest = excluded.digest RETURNING payload_id",
            *(digest, content),
        )
    )


def _payload_id(tx: Transaction, digest: bytes) -> int | None:
    # It must not go before a task refers to it.
    query = "SELECT payload_id FROM superlink_payload WHERE digest = ? FOR KEY SHARE"
    payload_id: int | None = tx.value(query, digest)
    return payload_id


_OLDEST = (
    f"SELECT number FROM superlink_task WHERE node_id = ? AND phase = {Phase.QUEUED}"
    " AND answer_holder IS NULL AND expires_at > ? ORDER BY number LIMIT 1"
)


def has_some(tx: Transaction, node_id: int) -> bool:
    """Say whether a task may be handed to a node."""
    return tx.exists(_OLDEST, node_id, tx.now)


def count_queued(tx: Reading) -> Mapping[int, int]:
    """Count the tasks that may be handed out, by node, who has waited longest first."""
    queued = tx.execute(
        f"SELECT node_id, count(*) FROM superlink_task WHERE phase = {Phase.QUEUED}"
        " AND answer_holder IS NULL AND expires_at > ? GROUP BY node_id ORDER BY min(number)",
        tx.now,
    )
    return dict(queued.fetchall())


def take(tx: Transaction, node_id: int, connection: str) -> Taken | None:
    """Take the node's oldest task, after having queued again what it never received."""
    if node_id != ANONYMOUS and not nodes.exists(tx, node_id):
        return None
    # A connection's name may come again: after a restart, or in another process.
    over = f"{tx.me} {connection}" if connection else ""
    if node_id != ANONYMOUS:
        _requeue_lost(tx, node_id, over)
    number = tx.value(
        f"UPDATE superlink_task SET phase = {Phase.UNDER_WAY}, holder = ?, connection = ?,"
        f" deliveries = deliveries + 1 WHERE number = ({_OLDEST} FOR UPDATE SKIP LOCKED)"
        " RETURNING number",
        *(tx.me, over, node_id, tx.now),
    )
    if number is None:
        # One that another process is just taking may be put back without a word, if that fails.
        if not has_some(tx, node_id):
            tx.notify(ChangeKind.EMPTY, node_id, _empty_over(tx, node_id, connection))
        return None
    *fields, size = _read(tx, number)
    task = rows.to_task(fields, b"")
    return Taken(task, read_content(tx, task.task_id) if size <= SMALL else None)


def _requeue_lost(tx: Transaction, node_id: int, connection: str) -> None:
    lost = tx.execute(
        f"UPDATE superlink_task SET phase = {Phase.QUEUED}"
        f" WHERE node_id = ? AND phase = {Phase.HANDED_OVER}"
        " AND deliveries < ? AND (? = '' OR connection != ?) RETURNING task_id",
        *(node_id, MAX_DELIVERIES, connection, connection),
    ).fetchall()
    for (task_id,) in lost:
        tx.execute(
            "UPDATE task_ins SET delivered_at = '' WHERE task_id = ? AND delivered_at != ?",
            *(task_id, rows.HIDDEN),
        )
        tx.notify(ChangeKind.QUEUED, node_id)


def _empty_over(tx: Transaction, node_id: int, connection: str) -> str | None:
    if node_id == ANONYMOUS:
        return None
    may_be_lost = tx.exists(
        f"SELECT 1 FROM superlink_task WHERE node_id = ? AND phase = {Phase.HANDED_OVER}"
        " AND deliveries < ?",
        *(node_id, MAX_DELIVERIES),
    )
    return connection if may_be_lost else None


def _read(tx: Reading, number: int) -> Sequence[Any]:
    """Give the columns of a task, and the bytes of its content."""
    row = tx.first(
        f"SELECT {rows.FIELDS_OF_T}, coalesce((SELECT length(content) FROM superlink_payload AS p"
        " WHERE p.payload_id = s.payload_id), length(t.recordset))"
        " FROM superlink_task AS s JOIN task_ins AS t USING (task_id) WHERE s.number = ?",
        number,
    )
    assert row is not None, "it was taken in the same transaction"
    return row


def read_content(tx: Reading, task_id: str) -> bytes | TaskError | None:
    """Read a taken task's content, which is small; None when the task was closed meanwhile."""
    row = tx.first(f"SELECT s.code, s.reason, {_CONTENT} {_UNDER_WAY}", task_id)
    if row is None:
        return None
    code, reason, content = row
    return content if code is None else TaskError(code, reason or "")


def read_large(tx: Reading, task_id: str) -> bytes | None:
    """Read a taken task's content; None when the task was closed meanwhile."""
    content: bytes | None = tx.content(_CONTENT, _UNDER_WAY, task_id)
    return content


def confirm(tx: Transaction, task: Task) -> None:
    """Note that a taken task was handed over."""
    confirmed = tx.execute(
        f"UPDATE superlink_task SET phase = {Phase.HANDED_OVER}, holder = NULL"
        f" WHERE task_id = ? AND phase = {Phase.UNDER_WAY} AND holder = ?",
        *(task.task_id, tx.me),
    )
    if confirmed.rowcount:
        tx.execute(
            "UPDATE task_ins SET delivered_at = ? WHERE task_id = ? AND delivered_at = ''",
            *(timestamp(tx.now), task.task_id),
        )
        tx.notify(ChangeKind.HANDED_OVER, task.consumer)


def put_back(tx: Transaction, task: Task) -> None:
    """Queue a taken task again."""
    queued = tx.execute(
        f"UPDATE superlink_task SET phase = {Phase.QUEUED}, holder = NULL,"
        " deliveries = deliveries - 1"
        f" WHERE task_id = ? AND phase = {Phase.UNDER_WAY} AND holder = ?",
        *(task.task_id, tx.me),
    )
    if queued.rowcount:
        tx.notify(ChangeKind.QUEUED, task.consumer)


def close(tx: Transaction, where: str, *values: object) -> list[str]:
    """Take tasks off their node's list; they are not handed out again, their payloads go."""
    closed = tx.execute(
        f"UPDATE superlink_task SET phase = {Phase.CLOSED}, holder = NULL, payload_id = NULL,"
        " size = size - coalesce((SELECT length(recordset) FROM task_ins AS t"
        " WHERE t.task_id = superlink_task.task_id), 0)"
        f" WHERE {where} RETURNING task_id",
        *values,
    ).fetchall()
    for (task_id,) in closed:
        tx.execute(
            "UPDATE task_ins SET recordset = ?, delivered_at = ? WHERE task_id = ?",
            *(b"", rows.HIDDEN, task_id),
        )
    return [task_id for (task_id,) in closed]


def drop(tx: Transaction, task_id: str) -> None:
    """Delete a task and its answer."""
    tx.execute(
        "DELETE FROM task_res WHERE task_id ="
        " (SELECT answer_id FROM superlink_task WHERE task_id = ?)",
        task_id,
    )
    if tx.execute("DELETE FROM task_ins WHERE task_id = ?", task_id).rowcount:
        tx.notify(ChangeKind.SETTLED, task_id, 0)
