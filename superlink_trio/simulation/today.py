"""Apps of `flwr` 1.39 and later, which may not be installed: the app has imported it."""

from __future__ import annotations

from typing import Any

from superlink_trio.simulation.backend import Job
from superlink_trio.wire.objects import pack, unpack
from superlink_trio.wire.splice import Buffer
from superlink_trio.wire.tasks import TaskError


def message(job: Job, content: Buffer | TaskError) -> Any:
    """Make the message that the app gets."""
    from flwr.app import Error, Message, Metadata

    task = job.task
    metadata = Metadata(
        run_id=task.run_id,
        message_id=task.task_id,
        src_node_id=task.producer,
        dst_node_id=task.consumer,
        reply_to_message_id="",
        group_id=task.group_id,
        created_at=task.created_at,
        ttl=task.ttl,
        message_type=task.task_type,
    )
    if isinstance(content, TaskError):
        return Message(metadata=metadata, error=Error(content.code, content.reason))
    return Message(metadata=metadata, content=_records(content))


def context(job: Job, state: Buffer) -> Any:
    """Make the context that the app gets."""
    from flwr.app import Context, RecordDict

    return Context(
        run_id=job.task.run_id,
        node_id=job.node.node_id,
        node_config=job.node.config,
        state=_records(state) if len(state) else RecordDict(),
        run_config=dict(job.run_config),
    )


def reply(reply: Any) -> tuple[bytes | TaskError, float]:
    """Give what the app replied and its ttl in seconds. Raises TypeError."""
    from flwr.app import Message

    if not isinstance(reply, Message):
        raise TypeError(f"the app gave a {type(reply).__name__}, not a Message")
    ttl = float(reply.metadata.ttl)
    if reply.has_error():
        return TaskError(reply.error.code, reply.error.reason or ""), ttl
    return _objects(reply.content), ttl


def state(context: Any) -> bytes:
    """Give what the app left in the context as objects; nothing where it left nothing."""
    return _objects(context.state) if context.state else b""


def _records(packed: Buffer) -> Any:
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    objects = unpack(packed)
    *_, root = objects
    return inflate_object_from_contents(root, objects)


def _objects(records: Any) -> bytes:
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        no_object_id_recompute,
    )

    with no_object_id_recompute():
        # Children before their parents.
        nested = get_all_nested_objects(records)
        return pack({object_id: one.deflate() for object_id, one in nested.items()})
