"""Steps from the nodes to the driver.

Answers hardly ever have equal contents: each lies in the reference's own column.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from superlink_trio.state import rules
from superlink_trio.state.durable.engine import ChangeKind, Taken
from superlink_trio.state.durable.heartbeats import Alive
from superlink_trio.state.rules import Asked, Phase, Question, Reply, Survey, Verdict
from superlink_trio.state.sql import rows, runs, task_ins
from superlink_trio.state.sql.rows import Collected
from superlink_trio.state.sql.task_ins import SMALL
from superlink_trio.state.sql.transaction import PORTION, Reading, Transaction, listed
from superlink_trio.wire.tasks import Task, TaskError, error_answer

_OF_ANSWER = "FROM task_res WHERE task_id = ?"
_NOT_WAITED_FOR = "answered already, or out of time"


def store(tx: Transaction, answer: Task) -> str:
    """Store an answer, or give the id of the one that is there."""
    asked_id = answer.ancestry[0]
    row = tx.first(
        "SELECT s.node_id, t.run_id, s.expires_at, s.answer_id FROM superlink_task AS s"
        " JOIN task_ins AS t USING (task_id)"
        f" WHERE s.task_id = ? AND s.collected = {Collected.NO} FOR UPDATE OF s",
        asked_id,
    )
    asked = None if row is None else Asked(*row)
    run_exists = runs.exists(tx, answer.run_id)
    verdict = rules.judge(answer, asked, run_exists=run_exists, now=tx.now)
    if verdict is Verdict.REPEATED and asked is not None and asked.answer_id is not None:
        return asked.answer_id
    if verdict is not Verdict.STORE:
        raise verdict.refusal(answer, _NOT_WAITED_FOR)
    tx.limits.check_answer(tx.stored_size(), answer.size)
    _answer(tx, asked_id, answer)
    return answer.task_id


def store_error(tx: Transaction, asked_id: str, error: TaskError, producer: int | None) -> bool:
    """Store an error as the answer."""
    open_ = f"AND s.answer_id IS NULL AND s.collected = {Collected.NO} FOR UPDATE OF s"
    asked = _asked(tx, asked_id, open_)
    if asked is None or not rules.takes_error(
        node_id=asked.consumer, answered=False, producer=producer
    ):
        return False
    _answer(tx, asked_id, error_answer(asked, error, now=tx.now))
    return True


def _asked(tx: Transaction, asked_id: str, condition: str = "") -> Task | None:
    row = tx.first(
        f"SELECT {rows.FIELDS_OF_T} FROM task_ins AS t JOIN superlink_task AS s USING (task_id)"
        f" WHERE s.task_id = ? {condition}",
        asked_id,
    )
    return None if row is None else rows.to_task(row, b"")


def _answer(tx: Transaction, asked_id: str, answer: Task) -> None:
    content = answer.content
    inline = content if isinstance(content, bytes) else None
    tx.insert("task_res", rows.COLUMNS, rows.to_row(answer, inline))
    task_ins.close(tx, "task_id = ?", asked_id)
    tx.execute(
        "UPDATE superlink_task SET answer_id = ?, answer_size = ?, answer_code = ?,"
        " answer_reason = ? WHERE task_id = ?",
        *(answer.task_id, answer.size),
        *rows.to_columns(content),
        asked_id,
    )
    tx.notify(ChangeKind.SETTLED, asked_id, answer.size)


def _look_up(tx: Reading, asked_ids: Collection[str], alive: Alive) -> Mapping[str, Question]:
    found = tx.execute(
        "SELECT s.task_id, s.node_id, s.expires_at,"
        " CASE WHEN s.answer_id IS NOT NULL THEN coalesce(s.answer_size, 0) END,"
        " s.answer_holder IS NOT NULL, n.online_until"
        " FROM json_each(?) AS wanted JOIN superlink_task AS s ON s.task_id = wanted.value"
        f" LEFT JOIN node AS n ON n.node_id = s.node_id WHERE s.collected = {Collected.NO}",
        listed(asked_ids),
    ).fetchall()
    questions: dict[str, Question] = {}
    for task_id, node_id, expires_at, answer_size, under_way, stored in found:
        until = None if stored is None else alive.until(node_id, stored, tx.now)
        questions[task_id] = Question(
            expires_at=expires_at,
            answer_size=answer_size,
            answer_under_way=bool(under_way),
            node_until=rules.end_of_node(node_id, until),
        )
    return questions


def survey(tx: Reading, asked_ids: Collection[str], alive: Alive) -> Survey:
    """Tell what is settled from what is worth waiting for."""
    return rules.survey(asked_ids, _look_up(tx, asked_ids, alive), tx.now)


def take(tx: Transaction, asked_ids: Collection[str], limit: int, alive: Alive) -> Sequence[Taken]:
    """Take answers, errors standing in, up to `limit` bytes in all."""
    questions = _look_up(tx, asked_ids, alive)
    taken: list[Taken] = []
    for asked_id in dict.fromkeys(asked_ids):
        question = questions.get(asked_id)
        answer = None if question is None else _reply(tx, asked_id, question.reply(tx.now))
        if question is None or answer is None:
            continue
        limit -= question.answer_size or answer.task.size
        if limit < 0 and taken:
            break
        if _claim(tx, asked_id, stands_in=question.answer_size is None):
            taken.append(answer)
    return taken


def _claim(tx: Transaction, asked_id: str, *, stands_in: bool) -> bool:
    """Take an answer, if it still is what was looked up: another process may have been faster."""
    claimed = tx.execute(
        "UPDATE superlink_task SET answer_holder = ? WHERE task_id = ? AND answer_holder IS NULL"
        f" AND collected = {Collected.NO} AND answer_id IS {'' if stands_in else 'NOT '}NULL",
        *(tx.me, asked_id),
    )
    return claimed.rowcount > 0


def _reply(tx: Transaction, asked_id: str, reply: Reply) -> Taken | None:
    if reply is Reply.ANSWER:
        return _stored(tx, asked_id)
    if reply.error is None:
        return None
    asked = _asked(tx, asked_id)
    assert asked is not None, "it was looked up in the same transaction"
    return Taken(error_answer(asked, reply.error, now=tx.now), reply.error)


def _stored(tx: Transaction, asked_id: str) -> Taken:
    row = tx.first(
        f"SELECT {rows.FIELDS}, length(recordset), answer_code, answer_reason"
        " FROM task_res JOIN (SELECT answer_id, answer_code, answer_reason FROM superlink_task"
        " WHERE task_id = ?) AS asked ON answer_id = task_res.task_id",
        asked_id,
    )
    assert row is not None, "it was looked up in the same transaction"
    *fields, size, code, reason = row
    answer = rows.to_task(fields, b"")
    if code is not None:
        return Taken(answer, TaskError(code, reason))
    return Taken(answer, None if size > SMALL else read_content(tx, answer.task_id))


def read_content(tx: Reading, answer_id: str) -> bytes:
    """Read an answer's content, which is small."""
    content: bytes = tx.value(f"SELECT recordset {_OF_ANSWER}", answer_id)
    return content


def read_large(tx: Reading, answer_id: str) -> bytes:
    """Read an answer's content."""
    content: bytes = tx.content("recordset", _OF_ANSWER, answer_id)
    return content


def confirm(tx: Transaction, answers: Sequence[Task]) -> None:
    """Note that taken answers were handed over: they and what they answer are gone.

    Their rows stay for a moment, see `purge`. An error that stood in is the answer from now on.
    """
    for answer in answers:
        asked_id = answer.ancestry[0]
        row = tx.first(
            f"UPDATE superlink_task SET collected = {Collected.JUST_NOW}"
            " WHERE task_id = ? AND answer_holder = ? RETURNING answer_id",
            *(asked_id, tx.me),
        )
        if row is None:
            continue
        (answer_id,) = row
        if answer_id is None:
            _answer(tx, asked_id, answer)
        tx.notify(ChangeKind.SETTLED, asked_id, 0)


def purge(tx: Transaction) -> bool:
    """Delete a portion of what was collected before the last `age`; say whether there may be more.

    When this process dies, the last of what it sent may never have arrived: the kernel throws
    away what it has not delivered yet. So what was collected just before is given again to a
    driver that asks for it again, which no driver does that has got it.
    """
    return _drop_collected(tx, f"collected = {Collected.A_WHILE_AGO}") == PORTION


def age(tx: Transaction) -> bool:
    """Let `purge` delete what was collected since the last time; say whether there is any."""
    young = tx.execute(
        f"UPDATE superlink_task SET collected = {Collected.A_WHILE_AGO}"
        f" WHERE answer_holder = ? AND collected = {Collected.JUST_NOW}",
        tx.me,
    )
    return young.rowcount > 0


def purge_all(tx: Transaction) -> None:
    """Delete everything that was collected: all of it has arrived, or never will."""
    while _drop_collected(tx, f"collected > {Collected.NO}") == PORTION:
        pass


def _drop_collected(tx: Transaction, which: str) -> int:
    collected = tx.execute(
        f"SELECT task_id FROM superlink_task WHERE answer_holder = ? AND {which} LIMIT ?",
        *(tx.me, PORTION),
    ).fetchall()
    for (task_id,) in collected:
        task_ins.drop(tx, task_id)
    return len(collected)


def put_back(tx: Transaction, answers: Sequence[Task]) -> None:
    """Make taken answers available again."""
    for answer in answers:
        row = tx.first(
            "UPDATE superlink_task SET answer_holder = NULL WHERE task_id = ?"
            f" AND answer_holder = ? AND collected = {Collected.NO} RETURNING phase, node_id",
            *(answer.ancestry[0], tx.me),
        )
        phase, node_id = row or (None, None)
        if phase == Phase.QUEUED:
            tx.notify(ChangeKind.QUEUED, node_id)
