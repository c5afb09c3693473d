"""Tasks as rows: of the reference's tables `task_ins` and `task_res`, which have the same columns.

Source: the SQL of Flower 1.8 to 1.11, flwr/server/superlink/state/sqlite_state.py.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError


class Collected(enum.IntEnum):
    """Whether an answer was handed over. The numbers are stored; see `task_res.purge`."""

    NO = 0
    JUST_NOW = 1
    A_WHILE_AGO = 2


FIELDS = (
    "task_id, group_id, run_id, producer_node_id, consumer_node_id, "
    "created_at, pushed_at, ttl, ancestry, task_type"
)
"""The columns that `to_task` wants, in its order."""

FIELDS_OF_T = ", ".join(f"t.{name}" for name in FIELDS.split(", "))
"""The same of a table that is called `t`."""

HIDDEN = "kept by superlink-trio"
"""`delivered_at` of what the reference could not read: it takes such a row for delivered."""

COLUMNS = (
    *("task_id", "group_id", "run_id", "producer_anonymous", "producer_node_id"),
    *("consumer_anonymous", "consumer_node_id", "created_at", "delivered_at", "pushed_at"),
    *("ttl", "ancestry", "task_type", "recordset"),
)
"""All that there are, in the order of `to_row`."""

INSERT = f"INSERT INTO {{table}}({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"


def to_row(task: Task, recordset: bytes | None) -> tuple[object, ...]:
    """Give the values for `INSERT`; without a recordset the row is hidden from the reference."""
    return (
        task.task_id,
        task.group_id,
        task.run_id,
        task.producer == ANONYMOUS,
        task.producer,
        task.consumer == ANONYMOUS,
        task.consumer,
        task.created_at,
        HIDDEN if recordset is None else "",
        task.pushed_at,
        task.ttl,
        ",".join(task.ancestry),
        task.task_type,
        b"" if recordset is None else recordset,
    )


def to_columns(content: bytes | TaskError) -> tuple[int | None, str | None]:
    """Give an error's code and reason; None where it is none."""
    return (content.code, content.reason) if isinstance(content, TaskError) else (None, None)


def to_task(row: Sequence[Any], content: bytes | TaskError) -> Task:
    """Make a task of the columns `FIELDS`."""
    task_id, group_id, run_id, producer, consumer, *times, ancestry, task_type = row
    created_at, pushed_at, ttl = times
    return Task(
        task_id=task_id,
        group_id=group_id,
        run_id=run_id,
        producer=producer,
        consumer=consumer,
        created_at=created_at,
        pushed_at=pushed_at,
        ttl=ttl,
        ancestry=tuple(ancestry.split(",")) if ancestry else (),
        task_type=task_type,
        content=content,
    )
