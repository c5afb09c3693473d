"""The tasks, their answers, and the bytes that both take."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable, Mapping

import attrs
import trio

from superlink_trio.state import rules
from superlink_trio.state.census import Contents, Counted, TaskState
from superlink_trio.state.interface import LINGER, Clock
from superlink_trio.state.payloads import Payload, PayloadPool
from superlink_trio.state.rules import Fate, Phase
from superlink_trio.state.waiting import Waiting
from superlink_trio.wire.tasks import Task

_SWEEP_AT_LEAST_EVERY = 60.0  # the wall clock may be set while the sweeper sleeps
_HEAP_SLACK = 1024  # dead heap entries that are not worth a rebuild
_COUNT_AT_ONCE = 500  # a millisecond's work at most: calls go on in between


@attrs.define(eq=False)
class Entry:
    """A TaskIns and all that has become of it."""

    asked: Task
    number: int
    payload: Payload | None
    kept: int
    """Bytes that the task and its answer take beside their payloads."""
    phase: Phase = Phase.QUEUED
    connection: str = ""
    deliveries: int = 0
    answer: Task | None = None
    answer_payload: Payload | None = None
    answer_under_way: bool = False

    @property
    def task_id(self) -> str:
        """The TaskIns's own."""
        return self.asked.task_id

    @property
    def expires_at(self) -> float:
        """When nobody waits for an answer any more."""
        return self.asked.pushed_at + self.asked.ttl

    def state(self, now: float) -> TaskState:
        """Say how far it has come."""
        return rules.task_state(
            self.phase,
            answered=self.answer is not None,
            expires_at=self.expires_at,
            now=now,
        )

    def may_be_taken(self, now: float) -> bool:
        """Say whether it may be handed to its node."""
        return rules.may_be_taken(
            self.phase,
            answer_under_way=self.answer_under_way,
            expires_at=self.expires_at,
            now=now,
        )


class Tasks:
    """All tasks, found by their ids, and by the nodes they are for."""

    def __init__(self, clock: Clock, waiting: Waiting) -> None:
        self._now = clock
        self._waiting = waiting
        self._entries: dict[str, Entry] = {}
        self._numbers = 0
        # By node: heaps of (number, task id), with ids that are not queued any more among them.
        self._queues: dict[int, list[tuple[int, str]]] = {}
        # By node: the ids of its tasks that have no answer yet, and of those it was handed.
        self._unanswered: dict[int, dict[str, None]] = {}
        self._handed_over: dict[int, dict[str, None]] = {}
        self._payloads = PayloadPool()
        # Bytes of what tasks take beside their payloads.
        self._kept = 0
        # Bytes that payloads would take were equal ones not shared.
        self._carried = 0
        # A heap of (time, task id): when the sweeper has to look at which task.
        self._due: list[tuple[float, str]] = []
        self._sooner = trio.Event()

    def get(self, task_id: str) -> Entry | None:
        """Find a task, None when it is not known."""
        return self._entries.get(task_id)

    # Bytes

    @property
    def size(self) -> int:
        """Bytes of all tasks and answers; equal payloads count once."""
        return self._kept + self._payloads.size

    def needed(self, tasks: Iterable[tuple[Task, bytes | None]]) -> int:
        """Say how many bytes these tasks, with the digests of their payloads, would take."""
        own = 0
        sizes: dict[bytes, int] = {}
        for task, digest in tasks:
            own += _own_size(task)
            if digest is not None and digest not in self._payloads:
                sizes[digest] = task.payload_size
        return own + sum(sizes.values())

    def _share(self, task: Task, digest: bytes | None) -> tuple[Task, Payload | None]:
        if digest is None or not isinstance(task.content, bytes):
            return task, None
        payload = self._payloads.share(digest, task.content)
        self._carried += len(payload.data)
        return attrs.evolve(task, content=payload.data), payload

    # From the driver to the nodes

    def add(self, task: Task, digest: bytes | None) -> None:
        """Queue a new task."""
        self._numbers += 1
        shared, payload = self._share(task, digest)
        entry = Entry(shared, self._numbers, payload, _own_size(task))
        self._entries[task.task_id] = entry
        self._kept += entry.kept
        self._unanswered.setdefault(task.consumer, {})[task.task_id] = None
        self._look_again_at(entry.expires_at, task.task_id)
        self.enqueue(entry)

    def unanswered(self, node_id: int) -> Collection[str]:
        """Give the ids of a node's tasks that have no answer and are within their time."""
        return self._unanswered.get(node_id, {})

    def queued(self, node_id: int) -> int:
        """Count the tasks in a node's queue; some may not be there any more."""
        return len(self._queues.get(node_id, ()))

    async def survey(self) -> Mapping[int, int]:
        """Count the tasks in all queues, by node."""
        return {node_id: len(queue) for node_id, queue in self._queues.items() if queue}

    def enqueue(self, entry: Entry) -> None:
        """Put a task into its old place, and wake who waits for it."""
        entry.phase = Phase.QUEUED
        node_id = entry.asked.consumer
        heapq.heappush(self._queues.setdefault(node_id, []), (entry.number, entry.task_id))
        self._waiting.notify_queued(node_id)

    def first(self, node_id: int) -> Entry | None:
        """Find the oldest task that may be handed out; drop what may not from the queue's top."""
        queue = self._queues.get(node_id)
        now = self._now()
        while queue:
            entry = self._entries.get(queue[0][1])
            if entry is not None and entry.may_be_taken(now):
                return entry
            heapq.heappop(queue)
        self._queues.pop(node_id, None)
        return None

    def take(self, node_id: int, connection: str) -> Task | None:
        """Take the oldest task that may be handed out."""
        entry = self.first(node_id)
        if entry is None:
            return None
        heapq.heappop(self._queues[node_id])
        entry.phase = Phase.UNDER_WAY
        entry.connection = connection
        entry.deliveries += 1
        return entry.asked

    def requeue_lost(self, node_id: int, connection: str) -> None:
        """Queue again what a node, which asks over this connection, never received."""
        for task_id in tuple(self._handed_over.get(node_id, ())):
            entry = self._entries[task_id]
            if rules.is_lost(
                deliveries=entry.deliveries, sent_over=entry.connection, asked_over=connection
            ):
                _discard(self._handed_over, node_id, task_id)
                self.enqueue(entry)

    def under_way(self, task_id: str) -> Entry | None:
        """Find a task that was taken and is not closed yet."""
        entry = self._entries.get(task_id)
        return entry if entry is not None and entry.phase is Phase.UNDER_WAY else None

    def hand_over(self, entry: Entry) -> None:
        """Note that a task has reached its node."""
        entry.phase = Phase.HANDED_OVER
        self._handed_over.setdefault(entry.asked.consumer, {})[entry.task_id] = None

    # From the nodes to the driver

    def answer(self, entry: Entry, answer: Task, digest: bytes | None = None) -> None:
        """Keep the answer to a task."""
        kept = _own_size(answer)
        entry.answer, entry.answer_payload = self._share(answer, digest)
        entry.kept += kept
        self._kept += kept
        self._close(entry)
        self._waiting.drivers.settle(entry.task_id, answer.size)

    def _close(self, entry: Entry) -> None:
        """Take a task off its node's list: it is not handed out again, its payload can go."""
        entry.phase = Phase.CLOSED
        self._carried -= _size_of(entry.payload)
        entry.payload = None
        entry.asked = attrs.evolve(entry.asked, content=b"")
        _discard(self._unanswered, entry.asked.consumer, entry.task_id)
        _discard(self._handed_over, entry.asked.consumer, entry.task_id)

    def drop(self, entry: Entry) -> None:
        """Forget a task and its answer."""
        self._close(entry)
        self._carried -= _size_of(entry.answer_payload)
        # Payloads count until nothing refers to them, and an error's traceback may refer to this.
        entry.answer = entry.answer_payload = None
        self._waiting.drivers.settle(entry.task_id, 0)
        self._kept -= entry.kept
        del self._entries[entry.task_id]

    # Counting

    async def count(self) -> Mapping[TaskState, Counted]:
        """Count the tasks in each state."""
        now = self._now()
        counts = dict.fromkeys(TaskState, 0)
        first: dict[TaskState, float] = {}
        # The oldest come first.
        for number, entry in enumerate(tuple(self._entries.values())):
            if number % _COUNT_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            if entry.task_id not in self._entries:
                continue  # dropped meanwhile
            state = entry.state(now)
            counts[state] += 1
            first.setdefault(state, entry.asked.pushed_at)
        return {
            state: Counted(count, now - first.get(state, now)) for state, count in counts.items()
        }

    def count_payloads(self) -> tuple[Contents, int]:
        """Count the payloads, and the bytes that are saved because equal ones are kept once."""
        kept = Contents(len(self._payloads), self._payloads.size)
        return kept, self._carried - kept.size

    # Sweeping

    def _look_again_at(self, when: float, task_id: str) -> None:
        if len(self._due) > 2 * len(self._entries) + _HEAP_SLACK:
            self._due = [item for item in self._due if item[1] in self._entries]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (when, task_id))
        if self._due[0][1] == task_id:
            self._sooner.set()

    async def sweep(self) -> None:
        """Close and drop what is out of time, until cancelled."""
        while True:
            self._sooner = trio.Event()
            now = self._now()
            while self._due and self._due[0][0] <= now:
                _, task_id = heapq.heappop(self._due)
                if task_id in self._entries:
                    self._sweep(self._entries[task_id], now)
            wait = self._due[0][0] - now if self._due else math.inf
            with trio.move_on_after(min(wait, _SWEEP_AT_LEAST_EVERY)):
                await self._sooner.wait()

    def _sweep(self, entry: Entry, now: float) -> None:
        fate = rules.fate(
            expires_at=entry.expires_at, answer_under_way=entry.answer_under_way, now=now
        )
        if fate is Fate.DROP:
            self.drop(entry)
            return
        if fate is Fate.CLOSE and entry.answer is None:
            self._close(entry)
        heapq.heappush(self._due, (max(entry.expires_at + LINGER, now + LINGER), entry.task_id))


def _own_size(task: Task) -> int:
    """Give the bytes of a task that it shares with no other."""
    return task.size - task.payload_size


def _size_of(payload: Payload | None) -> int:
    return 0 if payload is None else len(payload.data)


def _discard(index: dict[int, dict[str, None]], node_id: int, task_id: str) -> None:
    ids = index.get(node_id, {})
    ids.pop(task_id, None)
    if not ids:
        index.pop(node_id, None)
