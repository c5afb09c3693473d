"""Everybody who waits at a store, and what wakes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

import attrs
import trio

from superlink_trio.state.arrivals import Arrivals, Survey
from superlink_trio.state.interface import Clock
from superlink_trio.state.rules import Survey as Answers
from superlink_trio.wire.tasks import ANONYMOUS


class Waiting:
    """Pulls of nodes, listeners for many nodes, and drivers."""

    def __init__(self, clock: Clock) -> None:
        self.pulls = Parked()
        self.drivers = Gatherings(clock)
        self._listeners: set[Arrivals] = set()

    @contextmanager
    def arrivals(self, node_ids: Collection[int], survey: Survey) -> Iterator[Arrivals]:
        """Let somebody listen inside the block for tasks of these nodes."""
        listener = Arrivals(node_ids, survey)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)

    def notify_queued(self, node_id: int) -> None:
        """Wake a pull: a task was queued for its node."""
        self.pulls.wake_one(node_id)
        self.notify_listeners(node_id)

    def notify_handed_over(self, node_id: int) -> None:
        """Wake a pull whose node has just been sent a task elsewhere: it may never have got it.

        A node that works on a task does not pull. Anonymous ones cannot be told apart.
        """
        if node_id != ANONYMOUS:
            self.pulls.wake_one(node_id)

    def notify_listeners(self, node_id: int, tasks: int = 1) -> None:
        """Tell listeners that a node may have got tasks."""
        for listener in self._listeners:
            listener.notify(node_id, tasks)

    def look_again(self) -> None:
        """Let everybody look again: nobody knows what they missed."""
        self.pulls.wake_everyone()
        self.drivers.look_again()
        for listener in self._listeners:
            listener.look_again()


class Parked:
    """Pulls that wait, woken one by one: of several at one node the one that came last.

    An older one may be over a connection that is dead without anybody knowing, and would take the
    task with it.
    """

    def __init__(self) -> None:
        # By node; the oldest first.
        self._places: dict[int, dict[Place, None]] = {}

    def at(self, node_id: int) -> Place:
        """Give a pull a place, which it has from entering to leaving it."""
        return Place(self, node_id)

    def wake_one(self, node_id: int) -> None:
        """Wake the one that came last to a node."""
        places = self._places.get(node_id)
        if places:
            place, _ = places.popitem()
            place.woken.set()

    def wake_all(self, node_id: int) -> None:
        """Wake everyone who waits at a node."""
        while self._places.get(node_id):
            self.wake_one(node_id)

    def wake_everyone(self) -> None:
        """Wake everyone at every node: nobody knows what they missed."""
        for node_id in tuple(self._places):
            self.wake_all(node_id)

    def replace(self, node_id: int) -> None:
        """Wake everyone who waits at a node, and let them know that another pull waits instead."""
        for place in self._places.get(node_id, ()):
            place.replaced = True
        self.wake_all(node_id)

    def enter(self, place: Place) -> None:
        """Let a pull be woken."""
        self._places.setdefault(place.node_id, {})[place] = None

    def leave(self, place: Place) -> None:
        """Let a pull be woken no more."""
        places = self._places.get(place.node_id, {})
        places.pop(place, None)
        if not places:
            self._places.pop(place.node_id, None)


@attrs.define(eq=False)
class Place(AbstractContextManager["Place"]):
    """Where one pull waits.

    If the block is left by an exception although its pull was woken, another one is woken.
    """

    # Thousands of pulls wait at a time: a generator would take several times the memory.

    parked: Parked
    node_id: int
    woken: trio.Event = attrs.field(factory=trio.Event)
    """Set when there may be a task for the node."""
    replaced: bool = False
    """Whether the node has come with a newer pull since, to which its tasks belong."""

    def __enter__(self) -> Place:
        self.parked.enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.parked.leave(self)
        if kind is not None and self.woken.is_set():
            self.parked.wake_one(self.node_id)


class Gathering:
    """A driver that waits for several answers."""

    def __init__(
        self, task_ids: Collection[str], enough: int, progress: Callable[[int], object] | None
    ) -> None:
        self.pending = set(task_ids)
        self._progress = progress
        self.over = trio.Event()
        self._sizes: dict[str, int] = {}
        self._missing_bytes = enough

    def settle(self, settled: Mapping[str, int]) -> None:
        """Take note of answers, by the ids of what they answer, and of their sizes."""
        for task_id, size in settled.items():
            self.pending.discard(task_id)
            self._missing_bytes -= size - self._sizes.get(task_id, 0)
            self._sizes[task_id] = size
        if self.done:
            self.over.set()
        elif self._progress is not None:
            self._progress(len(self.pending))

    @property
    def done(self) -> bool:
        """Whether the driver has waited long enough."""
        return not self.pending or self._missing_bytes <= 0


class Gatherings:
    """All drivers that wait."""

    def __init__(self, clock: Clock) -> None:
        self._now = clock
        self._by_task: dict[str, set[Gathering]] = {}
        self._all: set[Gathering] = set()

    async def wait(
        self,
        task_ids: Collection[str],
        enough: int,
        progress: Callable[[int], object] | None,
        look: Callable[[Collection[str]], Awaitable[Answers]],
    ) -> None:
        """Wait as `State.await_task_res` says; `look` says what is settled."""
        done = False
        while not done:
            gathering = Gathering(task_ids, enough, progress)
            with self._joined(gathering):
                answers = await look(task_ids)
                gathering.settle(answers.settled)
                with trio.move_on_after(max(0.001, answers.changes_at - self._now())):
                    await gathering.over.wait()
            done = gathering.done

    @contextmanager
    def _joined(self, gathering: Gathering) -> Iterator[None]:
        task_ids = tuple(gathering.pending)
        self._all.add(gathering)
        for task_id in task_ids:
            self._by_task.setdefault(task_id, set()).add(gathering)
        try:
            yield
        finally:
            self._all.remove(gathering)
            for task_id in task_ids:
                self._by_task[task_id].discard(gathering)
                if not self._by_task[task_id]:
                    del self._by_task[task_id]

    def settle(self, task_id: str, size: int) -> None:
        """Tell those who wait for this answer that it is there, or will never be."""
        for gathering in self._by_task.get(task_id, ()):
            gathering.settle({task_id: size})

    def look_again(self) -> None:
        """Let every driver look again: a node is gone, or nobody knows what they missed."""
        for gathering in self._all:
            gathering.over.set()
