"""How tasks of Flower 1.8 to 1.11 are followed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from superlink_trio.rounds.rounds import Answered, Asked
from superlink_trio.state.interface import LINGER
from superlink_trio.wire.tasks import Task, TaskError


def asked(tasks: Iterable[Task]) -> Iterator[Asked]:
    """Give what is followed of tasks that a driver pushed."""
    for task in tasks:
        yield Asked(
            id=task.task_id,
            run_id=task.run_id,
            group_id=task.group_id,
            kind=task.task_type,
            node_id=task.consumer,
            since=task.pushed_at,
            expires_at=task.pushed_at + task.ttl + LINGER,
        )


def answered(answers: Iterable[Task]) -> Iterator[Answered]:
    """Give what is followed of answers that reached their driver."""
    for answer in answers:
        yield Answered(
            asked=answer.ancestry[0],
            run_id=answer.run_id,
            group_id=answer.group_id,
            error=answer.content.reason if isinstance(answer.content, TaskError) else None,
        )
