"""Tasks: what a driver asks of a node (TaskIns) and what the node answers (TaskRes).

Both have the same fields. A task moves through three shapes: a `Draft` is what arrived, not yet
checked; a `Task` is one that passed `faults`; on its way out it becomes bytes again.
"""

from __future__ import annotations

import datetime
import math
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import attrs
from google.protobuf.message import DecodeError

from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.splice import Buffer, Malformed, header, split, wrap

# Field numbers of proto/superlink_trio/wire/superlink.proto.
_PUSH_LIST, _PULL_INS_LIST, _PULL_RES_LIST = 1, 2, 1
_TASK, _RECORDSET = 4, 9

ANONYMOUS = 0
"""The node id that stands for "any anonymous node", and for the driver."""

EARLIEST_CREATED_AT = 1711497600.0
"""27 March 2024 in Unix seconds: the protocol's oldest believable timestamp."""

OVERHEAD = 1024
"""More bytes than a task's own fields take, its texts and its payload not counted."""

Message: TypeAlias = pb.TaskIns | pb.TaskRes


@attrs.frozen
class Draft:
    """A task as it arrived: its message without the payload, and the payload."""

    message: Message
    payload: bytes | None


@attrs.frozen
class TaskError:
    """Why there is no payload. `code`: 0 unknown, 1 app not loaded, 2 app raised, 3 no node."""

    code: int
    reason: str


@attrs.frozen(kw_only=True)
class Task:
    """A TaskIns or a TaskRes that passed its checks.

    Times are Unix seconds, `ttl` is seconds. Node ids are `ANONYMOUS` for an anonymous node and
    for the driver. `content` is the serialised RecordSet, or the error that stands in its place.
    """

    task_id: str
    group_id: str
    run_id: int
    producer: int
    consumer: int
    created_at: float
    pushed_at: float
    ttl: float
    ancestry: tuple[str, ...]
    task_type: str
    content: bytes | TaskError = attrs.field(repr=False)

    @property
    def payload_size(self) -> int:
        """Bytes of its payload; 0 where an error stands in its place."""
        return len(self.content) if isinstance(self.content, bytes) else 0

    @property
    def size(self) -> int:
        """An upper bound of the bytes this task takes in an answer."""
        texts = (self.group_id, self.task_type, *self.ancestry)
        content = self.content
        body = len(content) if isinstance(content, bytes) else 4 * len(content.reason)
        # A character is at most 4 bytes of UTF-8; 6 more hold a text's own header.
        return OVERHEAD + body + sum(4 * len(text) + 6 for text in texts)


def read_push_task_ins(raw: bytes) -> list[Draft]:
    """Parse a PushTaskInsRequest. Raises Malformed."""
    return _read_push(raw, pb.TaskIns)


def read_push_task_res(raw: bytes) -> list[Draft]:
    """Parse a PushTaskResRequest. Raises Malformed."""
    return _read_push(raw, pb.TaskRes)


def read_producers(raw: bytes) -> list[int]:
    """Give the producers' node ids in a PushTaskResRequest, one an item. Raises Malformed.

    `ANONYMOUS` for an item without one.
    """
    items, _ = split(memoryview(raw), _PUSH_LIST)
    return [_read_producer(item) for item in items]


def _read_producer(item: memoryview) -> int:
    tasks, _ = split(item, _TASK)
    task = pb.Task()
    try:
        for part in tasks:
            task.MergeFromString(split(part, _RECORDSET)[1])
    except DecodeError as error:
        raise Malformed("a task's fields cannot be read") from error
    return task.producer.node_id


def _read_push(raw: bytes, kind: Callable[[], Message]) -> list[Draft]:
    items, _ = split(memoryview(raw), _PUSH_LIST)
    return [_read_draft(item, kind()) for item in items]


def _read_draft(item: memoryview, message: Message) -> Draft:
    # A field that occurs twice is merged: for two payloads that is to join them.
    tasks, head = split(item, _TASK)
    payloads: list[memoryview] = []
    try:
        message.MergeFromString(head)
        for task in tasks:
            pieces, rest = split(task, _RECORDSET)
            payloads += pieces
            message.task.SetInParent()
            message.task.MergeFromString(rest)
    except DecodeError as error:
        raise Malformed("a task's fields cannot be read") from error
    return Draft(message, b"".join(payloads) if payloads else None)


def write_pull_task_ins(tasks: Iterable[Task], delivered_at: str) -> list[Buffer]:
    """Serialise a PullTaskInsResponse, in parts still to be joined."""
    return _write_pull(tasks, delivered_at, _PULL_INS_LIST)


def write_pull_task_res(tasks: Iterable[Task], delivered_at: str) -> list[Buffer]:
    """Serialise a PullTaskResResponse, in parts still to be joined."""
    return _write_pull(tasks, delivered_at, _PULL_RES_LIST)


def _write_pull(tasks: Iterable[Task], delivered_at: str, number: int) -> list[Buffer]:
    parts: list[Buffer] = []
    for task in tasks:
        parts += wrap(number, _write_task(task, delivered_at))
    return parts


def _write_task(task: Task, delivered_at: str) -> list[Buffer]:
    body = pb.Task(
        producer=pb.Node(node_id=task.producer, anonymous=task.producer == ANONYMOUS),
        consumer=pb.Node(node_id=task.consumer, anonymous=task.consumer == ANONYMOUS),
        created_at=task.created_at,
        delivered_at=delivered_at,
        pushed_at=task.pushed_at,
        ttl=task.ttl,
        ancestry=task.ancestry,
        task_type=task.task_type,
    )
    payload: list[Buffer] = []
    if isinstance(task.content, bytes):
        payload = [header(_RECORDSET, len(task.content)), task.content]
    else:
        body.error.code = task.content.code
        body.error.reason = task.content.reason
    # TaskIns and TaskRes have the same fields, so that one of them serves for both.
    head = pb.TaskIns(task_id=task.task_id, group_id=task.group_id, run_id=task.run_id)
    fields = [body.SerializeToString(), *payload]
    return [head.SerializeToString(), *wrap(_TASK, fields)]


def accept(draft: Draft, *, pushed_at: float) -> Task:
    """Make a Task of a draft without faults, under a fresh id."""
    message, task = draft.message, draft.message.task
    content = draft.payload
    return Task(
        task_id=new_task_id(),
        group_id=message.group_id,
        run_id=message.run_id,
        producer=task.producer.node_id,
        consumer=task.consumer.node_id,
        created_at=task.created_at,
        pushed_at=pushed_at,
        ttl=task.ttl,
        ancestry=tuple(task.ancestry),
        task_type=task.task_type,
        content=TaskError(task.error.code, task.error.reason) if content is None else content,
    )


def answer_to(asked: Task, content: bytes | TaskError, *, ttl: float, now: float) -> Task:
    """Make the TaskRes with which the node that was asked answers, under a fresh id."""
    return Task(
        task_id=new_task_id(),
        group_id=asked.group_id,
        run_id=asked.run_id,
        producer=asked.consumer,
        consumer=asked.producer,
        created_at=now,
        pushed_at=now,
        ttl=ttl,
        ancestry=(asked.task_id,),
        task_type=asked.task_type,
        content=content,
    )


def error_answer(asked: Task, error: TaskError, *, now: float) -> Task:
    """Make the TaskRes that stands in for an answer that will not come, or cannot be used."""
    return answer_to(asked, error, ttl=max(0.0, asked.pushed_at + asked.ttl - now), now=now)


def timestamp(unix_seconds: float) -> str:
    """Give a time as `delivered_at` carries it: ISO-8601, UTC."""
    return datetime.datetime.fromtimestamp(unix_seconds, tz=datetime.UTC).isoformat()


def new_task_id() -> str:
    """Give a fresh UUID4 as text."""
    return str(uuid.uuid4())


_Check: TypeAlias = tuple[str, Callable[[Draft], bool]]


def _node_ok(node: pb.Node) -> bool:
    return node.anonymous == (node.node_id == ANONYMOUS)


# What has to hold, and how a violation is called. NaN fails every comparison, as it should.
_BOTH: Sequence[_Check] = (
    ("task_id must be empty", lambda d: not d.message.task_id),
    ("producer must be set", lambda d: d.message.task.HasField("producer")),
    ("consumer must be set", lambda d: d.message.task.HasField("consumer")),
    (
        "created_at must be Unix seconds, not before 27 March 2024",
        lambda d: EARLIEST_CREATED_AT <= d.message.task.created_at < math.inf,
    ),
    ("delivered_at must be empty", lambda d: not d.message.task.delivered_at),
    ("ttl must be a number of seconds above 0", lambda d: 0 < d.message.task.ttl < math.inf),
    (
        "consumer must be either anonymous or have a node_id",
        lambda d: _node_ok(d.message.task.consumer),
    ),
    ("task_type must not be empty", lambda d: bool(d.message.task.task_type)),
    (
        "exactly one of recordset and error must be set",
        lambda d: (d.payload is None) == d.message.task.HasField("error"),
    ),
)
_TASK_INS: Sequence[_Check] = (
    (
        "producer must be anonymous with node_id 0",
        lambda d: (
            d.message.task.producer.anonymous and d.message.task.producer.node_id == ANONYMOUS
        ),
    ),
    ("ancestry must be empty", lambda d: not d.message.task.ancestry),
)
_TASK_RES: Sequence[_Check] = (
    (
        "producer must be either anonymous or have a node_id",
        lambda d: _node_ok(d.message.task.producer),
    ),
    (
        "ancestry must begin with the task_id that is answered",
        lambda d: len(d.message.task.ancestry) > 0 and bool(d.message.task.ancestry[0]),
    ),
)


def faults(draft: Draft) -> list[str]:
    """Name everything that is wrong with a draft; nothing when it may become a Task.

    `pushed_at` is the server's to set and is not looked at.
    """
    own = _TASK_INS if isinstance(draft.message, pb.TaskIns) else _TASK_RES
    if not draft.message.HasField("task"):
        return ["task must be set"]
    return [fault for fault, holds in (*_BOTH, *own) if not holds(draft)]
