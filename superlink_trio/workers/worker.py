"""What runs in a worker: a SuperLink, and its connection with the parent."""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping, Sequence
from functools import partial

import attrs
import trio

from superlink_trio.admin import Question, Topic
from superlink_trio.config import SuperLinkConfig
from superlink_trio.fleet import Presence
from superlink_trio.handle import SuperLink
from superlink_trio.leaves import Worker
from superlink_trio.logs.wording import described, leaves
from superlink_trio.processes import frames
from superlink_trio.superlink import run_worker
from superlink_trio.supervision import Control, Event
from superlink_trio.workers import logs
from superlink_trio.workers.messages import (
    Happened,
    NodeCall,
    Nodes,
    NodesElsewhere,
    Ping,
    Ready,
    Reload,
    Reply,
    Request,
    Start,
    Stop,
)

# Seconds between two messages about nodes: one is called absent half a minute after its last call.
_TELL_EVERY = 1.0


async def serve_part(
    start: Start,
    connection: socket.socket,
    config: SuperLinkConfig,
    *,
    control: Control,
    task_status: trio.TaskStatus[SuperLink],
) -> None:
    """Serve a worker's part until `control` stops it, or the parent has ended.

    Raises what `run_superlink` does.
    """
    outgoing, to_send = trio.open_memory_channel[object](math.inf)
    questions, asked = trio.open_memory_channel[Question](math.inf)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
    parent = _Parent(start.number, outgoing, questions, control, task_status)
    worker = Worker(questions=asked, tell=parent.note, follow=parent.follow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send, stream, to_send)
        nursery.start_soon(parent.tell_of_nodes)
        nursery.start_soon(parent.listen, frames.Receiver(stream), nursery)
        await run_worker(
            start.apis,
            config,
            worker=worker,
            control=control,
            observer=parent.tell,
            sockets=_sockets(start.sockets),
            task_status=parent,
        )
        nursery.cancel_scope.cancel()


def _sockets(descriptors: Mapping[str, Sequence[int]]) -> Mapping[str, Sequence[socket.socket]]:
    return {
        name: [socket.socket(fileno=number) for number in numbers]
        for name, numbers in descriptors.items()
    }


def _note_elsewhere(presence: Presence, calls: Mapping[int, NodeCall]) -> None:
    now = trio.current_time()
    for node_id, call in calls.items():
        until = None if call.until is None else now + call.until
        presence.heard_elsewhere(node_id, now + call.heard, until)


async def _send(stream: trio.SocketStream, messages: trio.MemoryReceiveChannel[object]) -> None:
    async for message in messages:
        try:
            await stream.send_all(frames.pack(message))
        except trio.BrokenResourceError:
            return  # `listen` notices too


@attrs.define(eq=False)
class _Parent:
    """The parent, as a worker sees it. A worker's SuperLink has it as `task_status`."""

    number: int
    _outgoing: trio.MemorySendChannel[object]
    _questions: trio.MemorySendChannel[Question]
    _control: Control
    _task_status: trio.TaskStatus[SuperLink]
    _link: SuperLink | None = None
    _presence: Presence | None = None
    """None where nodes are not served."""
    _nodes: dict[int, tuple[float, float | None]] = attrs.field(factory=dict)
    """What was noted of nodes, and when, and is not told yet."""

    def started(self, value: SuperLink | None = None) -> None:
        """Say that everything listens."""
        assert value is not None, "a SuperLink comes with its handle"
        self._link = value
        self._task_status.started(value)
        self._say(Ready(value.addresses()))

    def tell(self, event: Event) -> None:
        """Tell of a step of the tree."""
        why = "; ".join(map(described, leaves(event.cause)))
        self._say(Happened(kind=event.kind, path=event.path, why=why, delay=event.delay))

    def note(self, node_id: int, until: float | None) -> None:
        """Take note of a node that called, for the other workers."""
        self._nodes[node_id] = trio.current_time(), until

    def follow(self, presence: Presence) -> None:
        """Let it hear of nodes that call the other workers."""
        self._presence = presence

    async def tell_of_nodes(self) -> None:
        """Tell what was noted now and then, until cancelled."""
        while True:
            await trio.sleep(_TELL_EVERY)
            if self._nodes:
                nodes, self._nodes, now = self._nodes, {}, trio.current_time()
                calls = {
                    node_id: NodeCall(heard - now, None if until is None else until - now)
                    for node_id, (heard, until) in nodes.items()
                }
                self._say(Nodes(calls))

    async def listen(self, receiver: frames.Receiver, nursery: trio.Nursery) -> None:
        """Do what the parent wishes. Where there is no parent any more, stop."""
        try:
            while True:
                request: Request = await receiver.receive()
                nursery.start_soon(self._heed, request)
        except (EOFError, trio.BrokenResourceError):
            self._control.stop()

    async def _heed(self, request: Request) -> None:
        reply = partial(self._reply, request)
        match request.wish:
            case Ping():
                reply(None)
            case Reload(config, level):
                logs.set_level(level, self.number)
                assert self._link is not None, "a worker is asked nothing before it is ready"
                await self._link.reload(config)
                reply(None)
            case Stop():
                self._control.stop()
            case NodesElsewhere(calls):
                if self._presence is not None:
                    _note_elsewhere(self._presence, calls)
            case Topic() as topic:
                self._questions.send_nowait(Question(topic, reply))

    def _reply(self, request: Request, value: object) -> None:
        self._say(Reply(request.id, value))

    def _say(self, message: object) -> None:
        self._outgoing.send_nowait(message)
