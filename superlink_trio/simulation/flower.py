"""Apps of `flwr` 1.8 to 1.11, which may not be installed: the app has imported it, or it is none.

What differs between its releases is asked of its classes, not of its version.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from superlink_trio.simulation.backend import Job
from superlink_trio.wire.splice import Buffer
from superlink_trio.wire.tasks import TaskError


def is_client_app(app: object) -> bool:
    """Return whether an object is a ClientApp of `flwr`, or of a class derived from it."""
    return any(
        kind.__name__ == "ClientApp" and kind.__module__.split(".")[0] == "flwr"
        for kind in type(app).__mro__
    )


def message(job: Job, content: Buffer | TaskError) -> Any:
    """Make the message that the app gets."""
    from flwr.common.message import Error, Message, Metadata

    task = job.task
    metadata = Metadata(
        run_id=task.run_id,
        message_id=task.task_id,
        src_node_id=task.producer,
        dst_node_id=task.consumer,
        reply_to_message="",
        group_id=task.group_id,
        ttl=task.ttl,
        message_type=task.task_type,
    )
    if hasattr(metadata, "partition_id"):
        metadata.partition_id = job.node.partition_id
    if isinstance(content, TaskError):
        made = Message(metadata, error=Error(content.code, content.reason))
    else:
        made = Message(metadata, content=_records(content))
    # Its constructor sets the time at which it was called.
    made.metadata.created_at = task.created_at
    return made


def context(job: Job, state: Buffer) -> Any:
    """Make the context that the app gets."""
    from flwr.common import Context

    everything = {
        "node_id": job.node.node_id,
        "node_config": job.node.config,
        "state": _records(state),
        "run_config": dict(job.run_config),
    }
    known = _parameters(Context)
    return Context(**{name: value for name, value in everything.items() if name in known})


@functools.cache
def _parameters(kind: type) -> frozenset[str]:
    return frozenset(inspect.signature(kind).parameters)


def reply(reply: Any) -> tuple[bytes | TaskError, float]:
    """Give what the app replied and its ttl in seconds. Raises TypeError."""
    from flwr.common.message import Message

    if not isinstance(reply, Message):
        raise TypeError(f"the app gave a {type(reply).__name__}, not a Message")
    ttl = float(reply.metadata.ttl)
    if reply.has_error():
        return TaskError(reply.error.code, reply.error.reason or ""), ttl
    return _raw(reply.content), ttl


def state(context: Any) -> bytes:
    """Serialise what the app left in the context."""
    return _raw(context.state)


def _records(raw: Buffer) -> Any:
    from flwr.common.serde import recordset_from_proto
    from flwr.proto.recordset_pb2 import RecordSet
    from google.protobuf.message import DecodeError

    try:
        return recordset_from_proto(RecordSet.FromString(raw))
    except DecodeError as error:
        raise ValueError(f"the content is no RecordSet: {error}") from error


def _raw(records: Any) -> bytes:
    from flwr.common.serde import recordset_to_proto

    return bytes(recordset_to_proto(records).SerializeToString())
