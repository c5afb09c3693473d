"""Tasks and answers as Flower sends them, each with one call."""

from __future__ import annotations

import time

from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.splice import wrap
from superlink_trio.wire.tasks import ANONYMOUS, Task, new_task_id

DRIVER = pb.Node(node_id=0, anonymous=True)

_TTL = 3600.0


def task_ins(
    run_id: int, node: pb.Node, content: bytes = b"model", *, now: float | None = None
) -> pb.TaskIns:
    """Make a task of a driver for a node."""
    task = pb.Task(
        producer=DRIVER,
        consumer=node,
        created_at=now or time.time(),
        ttl=_TTL,
        task_type="train",
        recordset=content,
    )
    return pb.TaskIns(group_id="1", run_id=run_id, task=task)


def task_res(asked: pb.TaskIns, content: bytes, *, now: float | None = None) -> pb.TaskRes:
    """Make the answer to a task."""
    task = pb.Task(
        producer=asked.task.consumer,
        consumer=asked.task.producer,
        created_at=now or time.time(),
        ttl=_TTL,
        ancestry=[asked.task_id],
        task_type=asked.task.task_type,
        recordset=content,
    )
    return pb.TaskRes(group_id=asked.group_id, run_id=asked.run_id, task=task)


def record_set(data: bytes) -> bytes:
    """Serialise a RecordSet with one array of these bytes."""
    array = [*wrap(1, [b"uint8"]), *wrap(3, [b"numpy.ndarray"]), *wrap(4, [data])]
    record = [*wrap(1, [b"weights"]), *wrap(2, array)]
    entry = [*wrap(1, [b"model"]), *wrap(2, record)]
    return b"".join(wrap(1, entry))


def stored_task(run_id: int, node_id: int, content: bytes) -> Task:
    """Make a task as a state stores it."""
    now = time.time()
    return Task(
        task_id=new_task_id(),
        group_id="1",
        run_id=run_id,
        producer=ANONYMOUS,
        consumer=node_id,
        created_at=now,
        pushed_at=now,
        ttl=_TTL,
        ancestry=(),
        task_type="train",
        content=content,
    )
