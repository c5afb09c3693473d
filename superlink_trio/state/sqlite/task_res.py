"""Steps from the nodes to the driver.

Answers hardly ever have equal contents: each lies in the reference's own column.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs

from superlink_trio.state.interface import (
    NODE_UNAVAILABLE,
    OUT_OF_TIME,
    NotTaken,
    StateLimits,
)
from superlink_trio.state.sqlite import rows, runs, task_ins
from superlink_trio.state.sqlite.nodes import Alive
from superlink_trio.state.sqlite.task_ins import SMALL, Taken
from superlink_trio.state.sqlite.transaction import PORTION, Kind, Transaction
from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError, error_answer


def store(tx: Transaction, answer: Task, now: float, limits: StateLimits) -> str:
    """Store an answer, or give the id of the one that is there."""
    if not runs.exists(tx, answer.run_id):
        raise NotTaken(f"run {answer.run_id} is not known")
    asked_id = answer.ancestry[0]
    row = tx.first(
        "SELECT s.node_id, s.expires_at, s.answer_id, t.run_id FROM superlink_task AS s"
        " JOIN task_ins AS t USING (task_id) WHERE s.task_id = ? AND s.collected = 0",
        asked_id,
    )
    if row is None or (row[2] is None and row[1] <= now):
        raise NotTaken(f"task {asked_id} is not waited for: answered already, or out of time")
    node_id, _, answer_id, run_id = row
    if answer.producer != node_id or answer.run_id != run_id:
        raise NotTaken(f"task {asked_id} was not for node {answer.producer}")
    if answer_id is not None:
        return str(answer_id)
    limits.check_answer(tx.stored_size(), answer.size)
    _answer(tx, asked_id, answer)
    return answer.task_id


def store_error(
    tx: Transaction, asked_id: str, error: TaskError, producer: int | None, now: float
) -> bool:
    """Store an error as the answer."""
    asked = _asked(tx, asked_id, "AND s.answer_id IS NULL AND s.collected = 0")
    if asked is None or (producer is not None and producer != asked.consumer):
        return False
    _answer(tx, asked_id, error_answer(asked, error, now=now))
    return True


def _asked(tx: Transaction, asked_id: str, condition: str = "") -> Task | None:
    columns = ", ".join(f"t.{name}" for name in rows.FIELDS.split(", "))
    row = tx.first(
        f"SELECT {columns} FROM task_ins AS t JOIN superlink_task AS s USING (task_id)"
        f" WHERE s.task_id = ? {condition}",
        asked_id,
    )
    return None if row is None else rows.to_task(row, b"")


def _answer(tx: Transaction, asked_id: str, answer: Task) -> None:
    content = answer.content
    error = content if isinstance(content, TaskError) else None
    inline = content if isinstance(content, bytes) else None
    tx.execute(rows.INSERT.format(table="task_res"), *rows.to_row(answer, inline))
    task_ins.close(tx, "task_id = ?", asked_id)
    tx.execute(
        "UPDATE superlink_task SET answer_id = ?, answer_size = ?, answer_code = ?,"
        " answer_reason = ? WHERE task_id = ?",
        *(answer.task_id, answer.size),
        *(None if error is None else error.code, None if error is None else error.reason),
        asked_id,
    )
    tx.tell(Kind.SETTLED, asked_id, answer.size)


@attrs.frozen
class Question:
    """What a driver asked for, as far as it is known."""

    asked_id: str
    node_id: int
    expires_at: float
    answer_id: str | None
    answer_size: int
    under_way: bool
    online_until: float | None

    def changes_at(self, alive: Alive, now: float) -> float:
        """Say when an error may stand in, if nothing else happens before."""
        if self.node_id == ANONYMOUS:
            return self.expires_at
        if self.online_until is None:
            return -float("inf")
        return min(self.expires_at, alive.until(self.node_id, self.online_until, now))

    def stand_in(self, alive: Alive, now: float) -> TaskError | None:
        """Give the error that would be answered now, None while the node may still answer."""
        if self.expires_at <= now:
            return OUT_OF_TIME
        return NODE_UNAVAILABLE if self.changes_at(alive, now) <= now else None


def look_up(connection: sqlite3.Connection, asked_ids: Collection[str]) -> Mapping[str, Question]:
    """Look up what is known of some tasks."""
    found = connection.execute(
        "SELECT s.task_id, s.node_id, s.expires_at, s.answer_id, coalesce(s.answer_size, 0),"
        " s.answer_holder IS NOT NULL, n.online_until"
        " FROM json_each(?) AS wanted JOIN superlink_task AS s ON s.task_id = wanted.value"
        " LEFT JOIN node AS n ON n.node_id = s.node_id WHERE s.collected = 0",
        (json.dumps(list(asked_ids)),),
    )
    return {row[0]: Question(*row) for row in found}


@attrs.frozen
class Survey:
    """What a waiting driver has to know."""

    settled: Mapping[str, int]
    """The sizes of the answers that wait, and 0 where there is nothing to wait for."""
    changes_at: float
    """When to look again, if nothing else happens before."""


def survey(
    connection: sqlite3.Connection, asked_ids: Collection[str], alive: Alive, now: float
) -> Survey:
    """Tell what is settled from what is worth waiting for."""
    found = look_up(connection, asked_ids)
    settled = dict.fromkeys(asked_ids, 0)
    changes_at = float("inf")
    for question in found.values():
        if question.under_way or (not question.answer_id and question.stand_in(alive, now)):
            continue
        if question.answer_id is not None:
            settled[question.asked_id] = question.answer_size
        else:
            del settled[question.asked_id]
            changes_at = min(changes_at, question.changes_at(alive, now))
    return Survey(settled, changes_at)


def take(
    tx: Transaction, asked_ids: Collection[str], limit: int, alive: Alive, now: float
) -> Sequence[Taken]:
    """Take answers, errors standing in, up to `limit` bytes in all."""
    found = look_up(tx.connection, asked_ids)
    taken: list[Taken] = []
    for asked_id in dict.fromkeys(asked_ids):
        question = found.get(asked_id)
        if question is None or question.under_way:
            continue
        error = None if question.answer_id else question.stand_in(alive, now)
        if question.answer_id is None and error is None:
            continue
        answer = _stored(tx, question) if error is None else _stand_in(tx, asked_id, error, now)
        limit -= question.answer_size or answer.task.size
        if limit < 0 and taken:
            break
        tx.execute("UPDATE superlink_task SET answer_holder = ? WHERE task_id = ?", tx.me, asked_id)
        taken.append(answer)
    return taken


def _stand_in(tx: Transaction, asked_id: str, error: TaskError, now: float) -> Taken:
    asked = _asked(tx, asked_id)
    assert asked is not None, "it was looked up in the same transaction"
    answer = error_answer(asked, error, now=now)
    return Taken(answer, error)


def _stored(tx: Transaction, question: Question) -> Taken:
    row: tuple[Any, ...] = tx.execute(
        f"SELECT {rows.FIELDS}, length(recordset), answer_code, answer_reason"
        " FROM task_res JOIN (SELECT answer_id, answer_code, answer_reason FROM superlink_task"
        " WHERE task_id = ?) ON answer_id = task_res.task_id",
        question.asked_id,
    ).fetchone()
    size, code, reason = row[-3:]
    answer = rows.to_task(row, b"")
    if code is not None:
        return Taken(answer, TaskError(code, reason))
    return Taken(answer, None if size > SMALL else read_content(tx.connection, answer.task_id))


def read_content(connection: sqlite3.Connection, answer_id: str) -> bytes:
    """Read an answer's content."""
    content: bytes = connection.execute(
        "SELECT recordset FROM task_res WHERE task_id = ?", (answer_id,)
    ).fetchone()[0]
    return content


def confirm(tx: Transaction, answers: Sequence[Task]) -> None:
    """Note that taken answers were handed over: they and what they answer are gone.

    Their rows stay for a moment, see `purge`. An error that stood in is the answer from now on.
    """
    for answer in answers:
        asked_id = answer.ancestry[0]
        row = tx.first(
            "UPDATE superlink_task SET collected = 1 WHERE task_id = ? AND answer_holder = ?"
            " RETURNING answer_id",
            *(asked_id, tx.me),
        )
        if row is None:
            continue
        if row[0] is None:
            _answer(tx, asked_id, answer)
        tx.tell(Kind.SETTLED, asked_id, 0)


def purge(tx: Transaction) -> bool:
    """Delete a portion of what was collected before the last `age`; say whether there may be more.

    When this process dies, the last of what it sent may never have arrived: the kernel throws
    away what it has not delivered yet. So what was collected just before is given again to a
    driver that asks for it again, which no driver does that has got it.
    """
    return _drop_collected(tx, "collected = 2", PORTION) == PORTION


def age(tx: Transaction) -> bool:
    """Let `purge` delete what was collected since the last time; say whether there is any."""
    young = tx.execute(
        "UPDATE superlink_task SET collected = 2 WHERE answer_holder = ? AND collected = 1", tx.me
    )
    return young.rowcount > 0


def purge_all(tx: Transaction) -> None:
    """Delete everything that was collected: all of it has arrived, or never will."""
    _drop_collected(tx, "collected > 0", -1)


def _drop_collected(tx: Transaction, which: str, most: int) -> int:
    collected = tx.execute(
        f"SELECT task_id FROM superlink_task WHERE answer_holder = ? AND {which} LIMIT ?",
        *(tx.me, most),
    ).fetchall()
    for (task_id,) in collected:
        task_ins.drop(tx, task_id)
    return len(collected)


def put_back(tx: Transaction, answers: Sequence[Task]) -> None:
    """Make taken answers available again."""
    for answer in answers:
        row = tx.first(
            "UPDATE superlink_task SET answer_holder = NULL"
            " WHERE task_id = ? AND answer_holder = ? AND collected = 0 RETURNING phase, node_id",
            *(answer.ancestry[0], tx.me),
        )
        if row is not None and row[0] == 0:
            tx.tell(Kind.QUEUED, row[1])
