"""Apps on our own types (`superlink_trio.clientapp`)."""

from __future__ import annotations

from superlink_trio.clientapp import Context, Error, Message, decode, encode
from superlink_trio.simulation.backend import Job
from superlink_trio.wire.splice import Buffer
from superlink_trio.wire.tasks import TaskError


def message(job: Job, content: Buffer | TaskError) -> Message:
    """Make the message that the app gets."""
    task = job.task
    return Message(
        run_id=task.run_id,
        message_id=task.task_id,
        src_node_id=task.producer,
        dst_node_id=task.consumer,
        group_id=task.group_id,
        message_type=task.task_type,
        created_at=task.created_at,
        ttl=task.ttl,
        body=Error(content.code, content.reason)
        if isinstance(content, TaskError)
        else decode(content),
    )


def context(job: Job, state: Buffer) -> Context:
    """Make the context that the app gets."""
    return Context(
        node_id=job.node.node_id,
        node_config={**job.node.config},
        state=decode(state),
        run_config=dict(job.run_config),
    )


def reply(reply: object) -> tuple[bytes | TaskError, float]:
    """Give what the app replied and its ttl in seconds. Raises TypeError, ValueError."""
    if not isinstance(reply, Message):
        raise TypeError(f"the app gave a {type(reply).__name__}, not a Message")
    if isinstance(reply.body, Error):
        return TaskError(reply.body.code, reply.body.reason), reply.ttl
    return encode(reply.body), reply.ttl


def state(context: Context) -> bytes:
    """Serialise what the app left in the context. Raises TypeError, ValueError."""
    return encode(context.state)
