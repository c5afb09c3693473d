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
from superlink_trio.handle import SuperLink
from superlink_trio.leaves import Shared, Worker
from superlink_trio.logs.wording import described, leaves
from superlink_trio.processes import frames
from superlink_trio.processes.handover import Handover, SessionLeader
from superlink_trio.superlink import run_worker
from superlink_trio.supervision import Control, Event
from superlink_trio.workers import logs
from superlink_trio.workers.messages import (
    Happened,
    News,
    Ping,
    Ready,
    Reload,
    Reply,
    Request,
    Runs,
    Start,
    Stop,
)
from superlink_trio.workers.parts import starts_runs

# Seconds between two messages of news: a node is called absent half a minute after its last call.
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
    worker = Worker(
        questions=asked,
        share=parent.share,
        handover=Handover(parent.note_runs, start.runs) if starts_runs(start.number) else None,
        cookies=start.cookies,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send, stream, to_send)
        nursery.start_soon(parent.tell_news)
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
    _shared: dict[str, Shared] = attrs.field(factory=dict)
    """What takes notes for the other workers, and is told of theirs."""

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

    def share(self, name: str, shared: Shared) -> None:
        """Let it hear what happens at the other workers, and them what happens here."""
        shared.share()
        self._shared[name] = shared

    def note_runs(self, processes: Sequence[SessionLeader]) -> None:
        """Leave the processes of runs to whoever takes this worker's place."""
        self._say(Runs(processes))

    async def tell_news(self) -> None:
        """Tell what was noted now and then, until cancelled."""
        while True:
            await trio.sleep(_TELL_EVERY)
            noted = {name: shared.take() for name, shared in self._shared.items()}
            if told := {name: each for name, each in noted.items() if each is not None}:
                self._say(News(told))

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
            case News(told):
                for name, each in told.items():
                    if name in self._shared:  # it need not serve what that one does
                        self._shared[name].hear(each)
            case Topic() as topic:
                self._questions.send_nowait(Question(topic, reply))

    def _reply(self, request: Request, value: object) -> None:
        self._say(Reply(request.id, value))

    def _say(self, message: object) -> None:
        self._outgoing.send_nowait(message)
