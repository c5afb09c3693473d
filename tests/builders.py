"""Valid tasks and requests, each with one call, so that a test names only what matters to it."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import attrs

from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError, new_task_id

EPOCH = 1_800_000_000.0
"""The Unix time at which tests begin."""

STRANGE_TEXTS = {
    "empty": "",
    "NUL": "\0",
    "NUL inside": "a\0b",
    "symbol for NUL": "\N{SYMBOL FOR NULL}",
    "long": "".join(hashlib.sha256(b"%d" % number).hexdigest() for number in range(200)),
}
"""What a client may send for an id; the long one fits into no index of PostgreSQL."""

_groups = itertools.count(1)


def task_ins(run_id: int, node_id: int = ANONYMOUS, *, now: float = EPOCH, **changes: Any) -> Task:
    fields: dict[str, Any] = {
        "task_id": new_task_id(),
        "group_id": str(next(_groups)),
        "run_id": run_id,
        "producer": ANONYMOUS,
        "consumer": node_id,
        "created_at": now,
        "pushed_at": now,
        "ttl": 3600.0,
        "ancestry": (),
        "task_type": "train",
        "content": b"weights",
    }
    return Task(**{**fields, **changes})


def answer_to(asked: Task, *, now: float = EPOCH, **changes: Any) -> Task:
    answer = attrs.evolve(
        asked,
        task_id=new_task_id(),
        producer=asked.consumer,
        consumer=asked.producer,
        created_at=now,
        pushed_at=now,
        ancestry=(asked.task_id,),
        content=b"result",
    )
    return attrs.evolve(answer, **changes)


def is_error(task: Task, code: int) -> bool:
    return isinstance(task.content, TaskError) and task.content.code == code


def pb_node(node_id: int) -> pb.Node:
    return pb.Node(node_id=node_id, anonymous=node_id == ANONYMOUS)


def pb_task_ins(run_id: int, node_id: int, **changes: Any) -> pb.TaskIns:
    task = pb.Task(
        producer=pb_node(ANONYMOUS),
        consumer=pb_node(node_id),
        created_at=EPOCH,
        ttl=3600.0,
        task_type="train",
        recordset=b"weights",
    )
    task.MergeFrom(pb.Task(**changes))
    return pb.TaskIns(group_id="1", run_id=run_id, task=task)


def pb_task_res(asked: pb.TaskIns, **changes: Any) -> pb.TaskRes:
    task = pb.Task(
        producer=asked.task.consumer,
        consumer=asked.task.producer,
        created_at=EPOCH,
        ttl=60.0,
        ancestry=[asked.task_id],
        task_type=asked.task.task_type,
        recordset=b"result",
    )
    task.MergeFrom(pb.Task(**changes))
    return pb.TaskRes(group_id=asked.group_id, run_id=asked.run_id, task=task)
