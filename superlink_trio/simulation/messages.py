"""The messages of Flower 1.23 and later, as the engine takes them out of the state.

A simulated node has a key of its own as real ones have, though nobody signs with it: so it is the
same node again after a restart over the same database.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress

import attrs
import trio

from superlink_trio.simulation.beside import beside
from superlink_trio.simulation.source import (
    NO_TTL,
    Source,
    Waiting,
    when_available,
    when_there_is_room,
)
from superlink_trio.state import NotTaken, StateUnavailable
from superlink_trio.state.messages import Envelope, MessageState, NotPermitted
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.bulk import in_thread_if_large
from superlink_trio.wire.objects import (
    MalformedObject,
    error_reply,
    ids_of,
    pack,
    reply_with,
    root_of,
    tree_of,
    unpack,
)
from superlink_trio.wire.project import config_in_bundle
from superlink_trio.wire.runs import Scalar
from superlink_trio.wire.tasks import Task, TaskError

_HEARTBEAT_INTERVAL = 30.0
"""Seconds; a node is online for twice that after a heartbeat, as real ones are."""


class MessageSource(Source):
    """Messages in a state."""

    def __init__(self, state: MessageState) -> None:
        self._state = state
        self._contents = _Contents(state)
        # Instructions under way, by their ids.
        self._asked: dict[str, pb.Message] = {}

    def now(self) -> float:
        return self._state.now()

    async def create_node(self, partition_id: int) -> int:
        name = f"simulated {partition_id}"
        key = name.encode()
        with suppress(NotPermitted):
            await self._state.register_node(key, name=name)
        return await self._state.activate_node(key, _HEARTBEAT_INTERVAL)

    def attend(self, node_id: int) -> AbstractContextManager[object]:
        """Do nothing: `keep_online` does."""
        return nullcontext()

    async def keep_online(self, node_ids: Collection[int]) -> None:
        while True:
            for node_id in tuple(node_ids):
                with suppress(StateUnavailable):
                    await self._state.heartbeat(node_id, _HEARTBEAT_INTERVAL)
            await trio.sleep(_HEARTBEAT_INTERVAL / 2)

    async def delete_node(self, node_id: int) -> None:
        await self._state.unregister_node(node_id)

    @asynccontextmanager
    async def arrivals(self, node_ids: Collection[int]) -> AsyncIterator[Waiting]:
        async with beside() as nursery:
            arrivals = _Arrivals(self._state, nursery)
            for node_id in node_ids:
                arrivals.done(node_id)
            yield arrivals

    @asynccontextmanager
    async def take(self, node_id: int) -> AsyncIterator[Task | None]:
        envelope = await when_available(lambda: self._state.take(node_id))
        if envelope is None:
            yield None
            return
        message = envelope.message
        meta, message_id = message.metadata, envelope.message_id
        self._asked[message_id] = message
        try:
            async with self._contents.of(envelope) as content:
                yield None if content is None else _task(message, content)
        finally:
            del self._asked[message_id]
        await when_available(
            lambda: self._state.confirm(meta.run_id, node_id, message_id), shield=True
        )

    async def config_of(self, run_id: int) -> Mapping[str, Scalar]:
        """Give the config of the run's bundle under its own; nothing where the run is over."""
        run = await when_available(lambda: self._state.run(run_id))
        fab = None if run is None else await when_available(lambda: self._state.fab(run.fab_hash))
        if run is None or fab is None:
            return {}
        config = await trio.to_thread.run_sync(config_in_bundle, fab.content)
        return {**config, **run.override_config}

    def fault(self, task: Task, content: bytes | TaskError, ttl: float) -> str | None:
        return None if 0 < ttl < math.inf else NO_TTL

    async def answer(self, task: Task, content: bytes | TaskError, ttl: float) -> bool:
        if isinstance(content, TaskError):
            await self._push_error(task, content)
            return True
        try:
            objects = await in_thread_if_large(len(content), unpack, content)
            tree = tree_of(objects)
            asked = self._asked[task.task_id]
            message = reply_with(asked, tree.object_id, ttl=ttl, now=self.now())
            objects[message.metadata.message_id] = root_of(message, tree.object_id)
            await self._push(message, [tree], objects)
        except MalformedObject as error:
            await self._push_error(task, TaskError(0, f"The node's reply was none: {error}"))
            return False
        return True

    async def fail(self, task: Task, error: TaskError) -> None:
        with suppress(NotTaken):
            await self._push_error(task, error)

    async def _push_error(self, task: Task, error: TaskError) -> None:
        asked = self._asked[task.task_id]
        message = error_reply(asked, error.code, error.reason, now=self.now())
        await self._push(message, [], {message.metadata.message_id: root_of(message)})

    async def _push(
        self, message: pb.Message, children: Sequence[pb.ObjectTree], objects: Mapping[str, bytes]
    ) -> None:
        meta = message.metadata
        run_id, node_id = meta.run_id, meta.src_node_id
        tree = pb.ObjectTree(object_id=meta.message_id, children=children)
        envelope = Envelope(message, tree)
        pushed = await when_available(
            lambda: self._state.push(run_id, node_id, [envelope]), shield=True
        )
        if not pushed.message_ids[0]:
            raise NotTaken(f"run {run_id} is over, or nobody waits for it any more")
        for object_id in pushed.missing:
            await self._put(run_id, node_id, object_id, objects[object_id])

    async def _put(self, run_id: int, node_id: int, object_id: str, content: bytes) -> None:
        await when_there_is_room(
            lambda: self._state.put_object(run_id, node_id, object_id, content)
        )


def _task(message: pb.Message, content: bytes | TaskError) -> Task:
    meta = message.metadata
    return Task(
        task_id=meta.message_id,
        group_id=meta.group_id,
        run_id=meta.run_id,
        producer=meta.src_node_id,
        consumer=meta.dst_node_id,
        created_at=meta.created_at,
        pushed_at=meta.created_at,
        ttl=meta.ttl,
        ancestry=(),
        task_type=meta.message_type,
        content=content,
    )


class _Arrivals:
    """Nodes that may have an instruction: one that was given is watched again when it is done."""

    def __init__(self, state: MessageState, nursery: trio.Nursery) -> None:
        self._state = state
        self._nursery = nursery
        self._waiting: dict[int, None] = {}
        self._something = trio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    async def next(self) -> int:
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            self._something = trio.Event()
            await self._something.wait()
        node_id = next(iter(self._waiting))
        del self._waiting[node_id]
        return node_id

    def done(self, node_id: int) -> None:
        self._nursery.start_soon(self._watch, node_id)

    async def _watch(self, node_id: int) -> None:
        # One that is not known any more has left: an operator has unregistered it.
        if await when_available(lambda: self._state.await_instruction(node_id)):
            self._waiting[node_id] = None
            self._something.set()


@attrs.define(eq=False)
class _Shared:
    content: bytes = attrs.field(repr=False)
    users: int = 0


class _Contents:
    """What instructions say, in one piece: of those under way, what is the same is here once."""

    def __init__(self, state: MessageState) -> None:
        self._state = state
        self._shared: dict[str, _Shared] = {}
        self._packing = trio.Lock()

    @asynccontextmanager
    async def of(self, envelope: Envelope) -> AsyncIterator[bytes | TaskError | None]:
        """Give the content of an instruction that was taken; None where its run is over."""
        message = envelope.message
        if message.HasField("error"):
            yield TaskError(message.error.code, message.error.reason)
            return
        *parts, _ = ids_of(envelope.tree)
        if not parts:
            yield TaskError(0, "the message says nothing")
            return
        async with self._packing:
            shared = await self._share(message.metadata, parts)
        if shared is None:
            yield None
            return
        shared.users += 1
        try:
            yield shared.content
        finally:
            shared.users -= 1
            if not shared.users:
                self._shared.pop(parts[-1], None)

    async def _share(self, meta: pb.Metadata, parts: Sequence[str]) -> _Shared | None:
        known = self._shared.get(parts[-1])
        if known is not None:
            return known
        objects = {}
        for object_id in parts:
            content = await self._get(meta, object_id)
            if content is None:
                return None
            objects[object_id] = content
        size = sum(map(len, objects.values()))
        shared = _Shared(await in_thread_if_large(size, pack, objects))
        self._shared[parts[-1]] = shared
        return shared

    async def _get(self, meta: pb.Metadata, object_id: str) -> bytes | None:
        return await when_available(
            lambda: self._state.get_object(meta.run_id, meta.dst_node_id, object_id)
        )
