"""The default store: everything in memory, gone with the process.

Every method takes its step between two checkpoints, which is what makes it atomic. Everything is
found by key: the cost of a call does not depend on how much is queued for others.
"""

from __future__ import annotations

import enum
import heapq
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType

import attrs
import trio

from superlink_trio.state.arrivals import Arrivals
from superlink_trio.state.ids import draw_id
from superlink_trio.state.interface import (
    COME_BACK,
    FORGET,
    LINGER,
    MAX_DELIVERIES,
    NO_LIMITS,
    NODE_UNAVAILABLE,
    OUT_OF_TIME,
    SIGN_OF_LIFE,
    Admission,
    Clock,
    NotTaken,
    State,
    StateLimits,
    bounded_interval,
)
from superlink_trio.state.parked import Parked
from superlink_trio.state.payloads import Payload, PayloadPool, digests_of
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError, error_answer

_SWEEP_AT_LEAST_EVERY = 60.0  # the wall clock may be set while the sweeper sleeps
_FORGET_AGAIN_AFTER = 1.0  # while a flood of new nodes comes: each time looks at all nodes
_HEAP_SLACK = 1024  # dead heap entries that are not worth a rebuild


class _Phase(enum.Enum):
    QUEUED = enum.auto()
    UNDER_WAY = enum.auto()
    HANDED_OVER = enum.auto()
    ANSWERED = enum.auto()


@attrs.define(eq=False)
class _Node:
    online_until: float
    public_key: bytes = b""
    attended: int = 0

    def until(self, now: float) -> float:
        """Say when the node goes offline, if nothing else happens before."""
        return now + COME_BACK if self.attended else self.online_until

    def online(self, now: float) -> bool:
        return self.until(now) > now

    def greet(self, now: float) -> None:
        self.online_until = max(self.online_until, now + SIGN_OF_LIFE)


@attrs.frozen
class _Attendance(AbstractContextManager[None]):
    # Thousands of nodes are attended at a time: a generator would take several times the memory.

    node: _Node
    now: Clock

    def __enter__(self) -> None:
        self.node.attended += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.node.attended -= 1
        if kind is trio.Cancelled and not self.node.attended:
            self.node.online_until = self.now() + COME_BACK
        else:
            self.node.greet(self.now())


@attrs.define(eq=False)
class _Gathering:
    """A driver that waits for several answers."""

    pending: set[str]
    waiting_bytes: int
    enough: int
    progress: Callable[[int], object] | None
    over: trio.Event = attrs.field(factory=trio.Event)

    def settle(self, task_id: str, size: int) -> None:
        self.pending.discard(task_id)
        self.waiting_bytes += size
        if self.progress is not None:
            self.progress(len(self.pending))
        if not self.pending or self.waiting_bytes >= self.enough:
            self.over.set()


@attrs.define(eq=False)
class _Entry:
    """A TaskIns and all that has become of it."""

    asked: Task
    number: int
    payload: Payload | None
    kept: int
    """Bytes that the task and its answer take beside their payloads."""
    phase: _Phase = _Phase.QUEUED
    connection: str = ""
    deliveries: int = 0
    answer: Task | None = None
    answer_payload: Payload | None = None
    answer_under_way: bool = False
    gatherings: set[_Gathering] = attrs.field(factory=set)

    @property
    def expires_at(self) -> float:
        return self.asked.pushed_at + self.asked.ttl


class MemoryState(State):
    """State in memory."""

    def __init__(self, *, clock: Clock = time.time, limits: StateLimits = NO_LIMITS) -> None:
        super().__init__(clock=clock, limits=limits)
        self._nodes: dict[int, _Node] = {}
        self._by_key: dict[bytes, int] = {}
        self._deleted: dict[int, float] = {}
        self._runs: dict[int, Run] = {}
        self._fabs: dict[str, Fab] = {}
        self._payloads = PayloadPool()
        # Bytes of bundles, and of what tasks take beside their payloads.
        self._kept = 0
        self._forgot_at = -math.inf
        self._entries: dict[str, _Entry] = {}
        self._numbers = 0
        # By node: heaps of (number, task id), with ids that are not queued any more among them.
        self._queues: dict[int, list[tuple[int, str]]] = {}
        # By node: the ids of its tasks that have no answer yet, and of those it was handed.
        self._unanswered: dict[int, dict[str, None]] = {}
        self._handed_over: dict[int, dict[str, None]] = {}
        self._parked = Parked()
        self._listeners: set[Arrivals] = set()
        # A heap of (time, task id): when the sweeper has to look at which task.
        self._due: list[tuple[float, str]] = []
        self._sooner = trio.Event()

    async def serve(
        self,
        *,
        stopping: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Sweep until `stopping`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep_tasks)
            nursery.start_soon(self._sweep_nodes)
            task_status.started()
            await stopping.wait()
            nursery.cancel_scope.cancel()

    # Nodes

    async def create_node(self, ping_interval: float, public_key: bytes = b"") -> int:
        """See `State`."""
        online_until = self.now() + bounded_interval(ping_interval)
        if public_key in self._by_key:
            node_id = self._by_key[public_key]
            self._nodes[node_id].online_until = online_until
            return node_id
        self._make_room_for_node()
        node_id = _new_id(self._nodes)
        self._register(node_id, _Node(online_until))
        if public_key:
            self._bind(node_id, public_key)
        return node_id

    async def create_simulated_node(self) -> int:
        """See `State`."""
        return await self.create_node(SIGN_OF_LIFE)

    async def node_of_key(self, public_key: bytes) -> int | None:
        """See `State`."""
        return self._by_key.get(public_key)

    async def bind_node(self, node_id: int, public_key: bytes, *, readmit: bool) -> Admission:
        """See `State`."""
        own = self._by_key.get(public_key)
        if own is not None:
            return Admission.KNOWN if own == node_id else Admission.FOREIGN
        node = self._nodes.get(node_id)
        if node is not None and node.public_key:
            return Admission.FOREIGN
        if not readmit or node_id == ANONYMOUS or node_id in self._deleted:
            return Admission.UNKNOWN
        if node is None:
            self._make_room_for_node()
            self._register(node_id, _Node(self.now()))
        self._bind(node_id, public_key)
        return Admission.READMITTED

    def _bind(self, node_id: int, public_key: bytes) -> None:
        self._nodes[node_id].public_key = public_key
        self._by_key[public_key] = node_id

    async def delete_node(self, node_id: int) -> bool:
        """See `State`."""
        if node_id == ANONYMOUS:
            return False
        node = self._nodes.pop(node_id, None)
        if node is not None:
            self._deleted[node_id] = self.now()
            if len(self._deleted) > self.limits.nodes:
                del self._deleted[next(iter(self._deleted))]
            self._by_key.pop(node.public_key, None)
        self._parked.wake_all(node_id)
        for task_id in self._unanswered.get(node_id, ()):
            self._settle(self._entries[task_id])
        return node is not None

    async def ping(self, node_id: int, ping_interval: float, *, readmit: bool) -> Admission:
        """See `State`."""
        admission = self._admit(node_id, readmit=readmit)
        if admission is not Admission.UNKNOWN:
            self._nodes[node_id].online_until = self.now() + bounded_interval(ping_interval)
        return admission

    async def greet(self, node_id: int, *, readmit: bool) -> Admission:
        """See `State`."""
        self._parked.replace(node_id)
        admission = self._admit(node_id, readmit=readmit)
        if admission is not Admission.UNKNOWN:
            self._nodes[node_id].greet(self.now())
        return admission

    def _admit(self, node_id: int, *, readmit: bool) -> Admission:
        if node_id in self._nodes:
            return Admission.KNOWN
        if not readmit or node_id == ANONYMOUS or node_id in self._deleted:
            return Admission.UNKNOWN
        self._make_room_for_node()
        self._register(node_id, _Node(-math.inf))
        return Admission.READMITTED

    def _register(self, node_id: int, node: _Node) -> None:
        self._nodes[node_id] = node
        # One that comes back may take now what could not be taken before.
        if node_id in self._queues:
            for listener in self._listeners:
                listener.tell(node_id, len(self._queues[node_id]))

    def _make_room_for_node(self) -> None:
        now = self.now()
        if len(self._nodes) >= self.limits.nodes and now >= self._forgot_at + _FORGET_AGAIN_AFTER:
            self._forgot_at = now
            self._forget_nodes(now)
        self.limits.check_node(len(self._nodes))

    def attend(self, node_id: int) -> AbstractContextManager[None]:
        """See `State`."""
        node = self._nodes.get(node_id)
        return nullcontext() if node is None else _Attendance(node, self.now)

    async def online_nodes(self, run_id: int) -> Sequence[int]:
        """See `State`."""
        if run_id not in self._runs:
            return ()
        now = self.now()
        return [node_id for node_id, node in self._nodes.items() if node.online(now)]

    # Runs

    async def create_run(self, run: Run, fab: Fab | None = None) -> int:
        """See `State`."""
        if fab is not None and fab.hash not in self._fabs:
            self.limits.check_asked(self._stored, len(fab.content))
            self._fabs[fab.hash] = fab
            self._kept += len(fab.content)
        run_id = _new_id(self._runs)
        self._runs[run_id] = attrs.evolve(run, run_id=run_id)
        return run_id

    async def get_run(self, run_id: int) -> Run | None:
        """See `State`."""
        return self._runs.get(run_id)

    async def get_fab(self, fab_hash: str) -> Fab | None:
        """See `State`."""
        return self._fabs.get(fab_hash)

    # From the driver to the nodes

    async def store_task_ins(self, tasks: Sequence[Task]) -> Sequence[str]:
        """See `State`."""
        digests = await digests_of(tasks)
        known = [
            (task, digest, _own_size(task))
            for task, digest in zip(tasks, digests, strict=True)
            if task.run_id in self._runs
        ]
        for node_id, more in Counter(task.consumer for task, *_ in known).items():
            self.limits.check_queue(node_id, len(self._unanswered.get(node_id, ())), more)
        needed = self._needed((task, digest) for task, digest, _ in known)
        self.limits.check_asked(self._stored, needed + sum(kept for *_, kept in known))
        for task, digest, kept in known:
            self._queue(task, self._share(task, digest), kept)
        return [task.task_id if task.run_id in self._runs else "" for task in tasks]

    def _queue(self, task: Task, payload: Payload | None, kept: int) -> None:
        self._numbers += 1
        entry = _Entry(_with_shared_content(task, payload), self._numbers, payload, kept)
        self._entries[task.task_id] = entry
        self._kept += kept
        self._unanswered.setdefault(task.consumer, {})[task.task_id] = None
        self._look_again_at(entry.expires_at, task.task_id)
        self._enqueue(entry)

    async def await_task_ins(self, node_id: int) -> bool:
        """See `State`."""
        while node_id == ANONYMOUS or node_id in self._nodes:
            if self._first(node_id) is not None:
                return True
            with self._parked.at(node_id) as place:
                await place.woken.wait()
            if place.replaced:
                return False
        return False

    def _enqueue(self, entry: _Entry) -> None:
        entry.phase = _Phase.QUEUED
        node_id = entry.asked.consumer
        queue = self._queues.setdefault(node_id, [])
        heapq.heappush(queue, (entry.number, entry.asked.task_id))
        self._parked.wake_one(node_id)
        for listener in self._listeners:
            listener.tell(node_id)

    @contextmanager
    def arrivals(self, node_ids: Collection[int]) -> Iterator[Arrivals]:
        """See `State`."""
        listener = Arrivals(node_ids, self._count_queued)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)

    async def _count_queued(self) -> Mapping[int, int]:
        return {node_id: len(queue) for node_id, queue in self._queues.items() if queue}

    def _first(self, node_id: int) -> _Entry | None:
        """Find the oldest task that may be handed out; drop what may not from the queue's top."""
        queue = self._queues.get(node_id)
        now = self.now()
        while queue:
            entry = self._entries.get(queue[0][1])
            if (
                entry is not None
                and entry.phase is _Phase.QUEUED
                and not entry.answer_under_way
                and entry.expires_at > now
            ):
                return entry
            heapq.heappop(queue)
        self._queues.pop(node_id, None)
        return None

    async def take_task_ins(self, node_id: int, connection: str = "") -> Task | None:
        """See `State`."""
        if node_id != ANONYMOUS:
            if node_id not in self._nodes:
                return None
            self._requeue_lost(node_id, connection)
        entry = self._first(node_id)
        if entry is None:
            return None
        heapq.heappop(self._queues[node_id])
        entry.phase = _Phase.UNDER_WAY
        entry.connection = connection
        entry.deliveries += 1
        return entry.asked

    def _requeue_lost(self, node_id: int, connection: str) -> None:
        for task_id in tuple(self._handed_over.get(node_id, ())):
            entry = self._entries[task_id]
            elsewhere = not connection or entry.connection != connection
            if elsewhere and entry.deliveries < MAX_DELIVERIES:
                _discard(self._handed_over, node_id, task_id)
                self._enqueue(entry)

    async def confirm_task_ins(self, task: Task) -> None:
        """See `State`."""
        entry = self._entries.get(task.task_id)
        if entry is not None and entry.phase is _Phase.UNDER_WAY:
            entry.phase = _Phase.HANDED_OVER
            self._handed_over.setdefault(task.consumer, {})[task.task_id] = None

    async def put_back_task_ins(self, task: Task) -> None:
        """See `State`."""
        entry = self._entries.get(task.task_id)
        if entry is not None and entry.phase is _Phase.UNDER_WAY:
            entry.deliveries -= 1
            self._enqueue(entry)

    # From the nodes to the driver

    async def store_task_res(self, task: Task) -> str:
        """See `State`."""
        [digest] = await digests_of([task])
        asked_id = task.ancestry[0]
        if task.run_id not in self._runs:
            raise NotTaken(f"run {task.run_id} is not known")
        entry = self._entries.get(asked_id)
        if entry is None or (entry.answer is None and entry.expires_at <= self.now()):
            raise NotTaken(
                f"task {asked_id} is not waited for: answered already, out of time, "
                "or lost in a restart"
            )
        if task.producer != entry.asked.consumer or task.run_id != entry.asked.run_id:
            raise NotTaken(f"task {asked_id} was not for node {task.producer}")
        if entry.answer is not None:
            return entry.answer.task_id
        kept = _own_size(task)
        self.limits.check_answer(self._stored, self._needed([(task, digest)]) + kept)
        payload = self._share(task, digest)
        self._answer(entry, _with_shared_content(task, payload), payload, kept)
        return task.task_id

    async def store_error(self, task_id: str, error: TaskError, *, producer: int | None) -> bool:
        """See `State`."""
        entry = self._entries.get(task_id)
        if entry is None or entry.answer is not None:
            return False
        if producer is not None and producer != entry.asked.consumer:
            return False
        answer = error_answer(entry.asked, error, now=self.now())
        self._answer(entry, answer, None, _own_size(answer))
        return True

    def _answer(self, entry: _Entry, answer: Task, payload: Payload | None, kept: int) -> None:
        entry.answer = answer
        entry.answer_payload = payload
        entry.kept += kept
        self._kept += kept
        self._close(entry)
        self._settle(entry, answer.size)

    def _close(self, entry: _Entry) -> None:
        """Take a task off its node's list: it is not handed out again, its payload can go."""
        entry.phase = _Phase.ANSWERED
        entry.payload = None
        entry.asked = attrs.evolve(entry.asked, content=b"")
        _discard(self._unanswered, entry.asked.consumer, entry.asked.task_id)
        _discard(self._handed_over, entry.asked.consumer, entry.asked.task_id)

    def _settle(self, entry: _Entry, size: int = 0) -> None:
        for gathering in entry.gatherings:
            gathering.settle(entry.asked.task_id, size)

    def _stand_in(self, entry: _Entry, now: float) -> TaskError | None:
        """Give the error that would be answered now, None while the node may still answer."""
        if entry.expires_at <= now:
            return OUT_OF_TIME
        node_id = entry.asked.consumer
        if node_id == ANONYMOUS:
            return None
        node = self._nodes.get(node_id)
        return None if node is not None and node.online(now) else NODE_UNAVAILABLE

    def _changes_at(self, entry: _Entry, now: float) -> float:
        """Say when an error may stand in, if nothing else happens before."""
        node = self._nodes.get(entry.asked.consumer)
        return entry.expires_at if node is None else min(entry.expires_at, node.until(now))

    async def await_task_res(
        self,
        task_ids: Collection[str],
        enough: int,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        """See `State`."""
        while True:
            pending, waiting_bytes = self._survey(task_ids)
            if not pending or waiting_bytes >= enough:
                return
            if progress is not None:
                progress(len(pending))
            gathering = _Gathering(set(pending), waiting_bytes, enough, progress)
            for entry in pending.values():
                entry.gatherings.add(gathering)
            try:
                now = self.now()
                earliest = min(self._changes_at(entry, now) for entry in pending.values())
                with trio.move_on_after(max(0.001, earliest - now)):
                    await gathering.over.wait()
            finally:
                for entry in pending.values():
                    entry.gatherings.discard(gathering)

    def _survey(self, task_ids: Collection[str]) -> tuple[Mapping[str, _Entry], int]:
        """Give the tasks that are not settled, and the size of the answers that wait."""
        now = self.now()
        pending: dict[str, _Entry] = {}
        waiting_bytes = 0
        for task_id in task_ids:
            entry = self._entries.get(task_id)
            if entry is None or entry.answer_under_way:
                continue
            if entry.answer is not None:
                waiting_bytes += entry.answer.size
            elif self._stand_in(entry, now) is None:
                pending[task_id] = entry
        return pending, waiting_bytes

    async def take_task_res(self, task_ids: Collection[str], limit: int) -> Sequence[Task]:
        """See `State`."""
        now = self.now()
        answers: list[Task] = []
        for task_id in dict.fromkeys(task_ids):
            entry = self._entries.get(task_id)
            answer = None if entry is None else self._answer_now(entry, now)
            if entry is None or answer is None:
                continue
            limit -= answer.size
            if limit < 0 and answers:
                break
            entry.answer_under_way = True
            answers.append(answer)
        return answers

    def _answer_now(self, entry: _Entry, now: float) -> Task | None:
        if entry.answer_under_way:
            return None
        if entry.answer is not None:
            return entry.answer
        error = self._stand_in(entry, now)
        return None if error is None else error_answer(entry.asked, error, now=now)

    async def confirm_task_res(self, answers: Sequence[Task]) -> None:
        """See `State`."""
        for answer in answers:
            entry = self._entries.get(answer.ancestry[0])
            if entry is not None:
                self._drop(entry)

    async def put_back_task_res(self, answers: Sequence[Task]) -> None:
        """See `State`."""
        for answer in answers:
            entry = self._entries.get(answer.ancestry[0])
            if entry is not None:
                entry.answer_under_way = False
                if entry.phase is _Phase.QUEUED:
                    self._enqueue(entry)

    def _drop(self, entry: _Entry) -> None:
        self._close(entry)
        self._settle(entry)
        self._kept -= entry.kept
        del self._entries[entry.asked.task_id]

    # Payloads and sweeping

    @property
    def _stored(self) -> int:
        return self._kept + self._payloads.size

    def _needed(self, tasks: Iterable[tuple[Task, bytes | None]]) -> int:
        """Say how many bytes the payloads of these tasks take more; equal ones take theirs once."""
        sizes = {digest: task.payload_size for task, digest in tasks if digest is not None}
        return sum(size for digest, size in sizes.items() if digest not in self._payloads)

    def _share(self, task: Task, digest: bytes | None) -> Payload | None:
        if digest is None or not isinstance(task.content, bytes):
            return None
        return self._payloads.share(digest, task.content)

    def _look_again_at(self, when: float, task_id: str) -> None:
        if len(self._due) > 2 * len(self._entries) + _HEAP_SLACK:
            self._due = [item for item in self._due if item[1] in self._entries]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (when, task_id))
        if self._due[0][1] == task_id:
            self._sooner.set()

    async def _sweep_tasks(self) -> None:
        while True:
            self._sooner = trio.Event()
            now = self.now()
            while self._due and self._due[0][0] <= now:
                _, task_id = heapq.heappop(self._due)
                if task_id in self._entries:
                    self._sweep(self._entries[task_id], now)
            wait = self._due[0][0] - now if self._due else math.inf
            with trio.move_on_after(min(wait, _SWEEP_AT_LEAST_EVERY)):
                await self._sooner.wait()

    def _sweep(self, entry: _Entry, now: float) -> None:
        over_at = entry.expires_at + LINGER
        if entry.answer_under_way or now < over_at:
            if entry.answer is None and not entry.answer_under_way:
                self._close(entry)
            heapq.heappush(self._due, (max(over_at, now + LINGER), entry.asked.task_id))
        else:
            self._drop(entry)

    async def _sweep_nodes(self) -> None:
        while True:
            await trio.sleep(FORGET / 24)
            old = self.now() - FORGET
            self._deleted = {node: when for node, when in self._deleted.items() if when > old}
            self._forget_nodes(old)

    def _forget_nodes(self, since: float) -> None:
        """Forget the nodes that were not online at any time since; those with a key stay."""
        self._nodes = {
            node_id: node
            for node_id, node in self._nodes.items()
            if node.public_key or node.online(since)
        }


def _own_size(task: Task) -> int:
    """Give the bytes of a task that it shares with no other."""
    return task.size - task.payload_size


def _with_shared_content(task: Task, payload: Payload | None) -> Task:
    return task if payload is None else attrs.evolve(task, content=payload.data)


def _discard(index: dict[int, dict[str, None]], node_id: int, task_id: str) -> None:
    ids = index.get(node_id, {})
    ids.pop(task_id, None)
    if not ids:
        index.pop(node_id, None)


def _new_id(taken: Collection[int]) -> int:
    """Draw an id that is not in use."""
    node_id = draw_id()
    while node_id in taken:
        node_id = draw_id()
    return node_id
