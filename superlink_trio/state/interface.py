"""The contract every store keeps. Read this first.

Each method but `census` is one atomic step, named for what it means to its caller; none does half
of what it says, whatever fails or is cancelled. Waiting is part of the contract: the two `await_…`
methods return when there is something to take, never miss it, and do not poll; `arrivals` does the
same for many nodes at once.

What is over one of the `StateLimits` raises LimitReached, in good order: nothing was changed.

A store on a disk may raise StateUnavailable, but not from `attend`, `confirm_…` and `put_back_…`:
what those say is kept, and said when the disk is there again.

A task moves like this::

    store_task_ins ──▶ queued ──take──▶ handed out ──store_task_res──▶ answered ──take──▶ under way
                         ▲               │                               ▲                 │    │
                         └── put back ───┘                               └─── put back ────┘ confirm
                                                                                                ▼
                                                                                              gone

What was taken is on its way to somebody: `confirm_…` says that it was handed over, `put_back_…`
that it was not. One of the two follows every take.

Where a driver asks for a task whose node cannot answer any more (offline, deleted, out of time),
the store gives an error TaskRes in the answer's place: it *stands in*.
"""

from __future__ import annotations

import enum
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TypeAlias

import attrs
import trio

from superlink_trio.state.arrivals import Arrivals
from superlink_trio.state.census import Census
from superlink_trio.state.limits import NO_LIMITS, StateLimits
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import Task, TaskError

Clock: TypeAlias = Callable[[], float]
"""Gives Unix seconds. The one seam through which time comes in: tests pass their own."""

HEARTBEAT_TIMEOUT = 30.0
"""Seconds for which a node counts as online after a pull; the clients' own ping interval."""

MAX_PING_INTERVAL = 3600.0
"""Seconds for which a ping keeps a node online at most, whatever interval it names."""

COME_BACK = 5.0
"""Seconds for which a node counts as online after its held connection broke. Clients try again
within the first of them."""

ACKNOWLEDGE_TIMEOUT = 5.0
"""Seconds for which a cancelled call may take to confirm or put back what it took."""

LINGER = 600.0
"""Seconds for which a task that ran out of time can still be asked for; drivers ask every few."""

FORGET = 24 * 3600.0
"""Seconds after which deleted nodes, and nodes not heard of, are forgotten."""

MAX_DELIVERIES = 3
"""How often a TaskIns is handed to a node that keeps losing it, before its ttl has to decide."""

NODE_UNAVAILABLE = TaskError(
    code=3,
    reason=(
        "Error: Node Unavailable - The destination node is currently unavailable. "
        "It exceeds the time limit specified in its last ping."
    ),
)
OUT_OF_TIME = TaskError(code=0, reason="The task's ttl ran out before its node answered.")


class NotTaken(Exception):
    """A TaskRes was not stored; the message says why."""


class StateUnavailable(Exception):
    """The store cannot do this now: nothing was changed, and it may work later.

    The message says what is wrong with what, and what an operator can do about it.
    """


class CannotOpen(OSError):
    """The store could not be opened; the message says what is wrong and what to do."""


class Admission(enum.Enum):
    """Whether a node that calls is one of ours."""

    KNOWN = enum.auto()
    READMITTED = enum.auto()
    UNKNOWN = enum.auto()
    FOREIGN = enum.auto()
    """Asked about a key's node: the node is another key's, or the key's node is another."""


@attrs.frozen
class Work:
    """What a store over a database has done since it was made, counted, and does now."""

    commits: int
    steps: int
    """What these commits held."""
    sweeps: int
    commit_age: float = 0.0
    """For how long the commit under way has been, in seconds."""


class State(ABC):
    """Nodes, runs and tasks of one SuperLink."""

    def __init__(self, *, clock: Clock = time.time, limits: StateLimits = NO_LIMITS) -> None:
        self.now = clock
        self.limits = limits

    @property
    def work(self) -> Work | None:
        """What its database has had to do; None for a store that has none."""
        return None

    @abstractmethod
    async def serve(
        self,
        *,
        stopping: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run the store's own tasks (writer, sweeper) until `stopping`; ready when it is open.

        Raises CannotOpen.
        """

    @abstractmethod
    async def create_node(self, ping_interval: float, public_key: bytes = b"") -> int:
        """Register a node, online for `ping_interval` seconds from now; give its id.

        The interval counts as `rules.bounded_interval` says, here and in `ping`.
        With `public_key` the node is bound to that key. A key has one node: where it has it
        already, that one is online anew, and its id is given. Raises LimitReached.
        """

    @abstractmethod
    async def create_simulated_node(self) -> int:
        """Register a node that this process simulates, online for `HEARTBEAT_TIMEOUT` seconds.

        It goes with the process: once that has ended, however it did, the node is not known any
        more. Raises LimitReached.
        """

    @abstractmethod
    async def node_of_key(self, public_key: bytes) -> int | None:
        """Give the id of the node that is bound to a key, None when there is none.

        A bound node is kept until it is deleted, however long it is offline.
        """

    @abstractmethod
    async def bind_node(self, node_id: int, public_key: bytes, *, readmit: bool) -> Admission:
        """Say whether a node is the one bound to a key (KNOWN).

        With `readmit` a key that has no node is bound to this one (READMITTED), unless it was
        deleted or is anonymous; a node that is not known is registered by it, offline as yet.
        FOREIGN: another key has the node, or the key has another one. UNKNOWN: none of these.
        Raises LimitReached where there is no room for a node that has to be registered.
        """

    @abstractmethod
    async def delete_node(self, node_id: int) -> bool:
        """Forget a node for good and end its held pull; say whether it was known.

        Its id is not admitted again. A key that it was bound to has no node any more.
        """

    @abstractmethod
    async def ping(self, node_id: int, ping_interval: float, *, readmit: bool) -> Admission:
        """Keep a node online for `ping_interval` seconds from now.

        With `readmit` an unknown node is registered under its own id, unless it was deleted.
        Raises LimitReached where there is no room for it.
        """

    @abstractmethod
    async def heartbeat(self, node_id: int, *, readmit: bool) -> Admission:
        """Take a pull for a heartbeat: it is online for `HEARTBEAT_TIMEOUT` seconds more at least.

        Re-admits like `ping`. An older pull of the node, if one waits still, waits no more.
        """

    @abstractmethod
    def attend(self, node_id: int) -> AbstractContextManager[None]:
        """Keep a known node online inside the block, and for `HEARTBEAT_TIMEOUT` seconds after it.

        Where the block is cancelled from outside the node has lost its connection: it is online
        for `COME_BACK` seconds then, whatever its last ping said, unless a heartbeat follows.
        So at any moment inside the block it will be online for that long at least.
        """

    @abstractmethod
    async def online_nodes(self, run_id: int) -> Sequence[int]:
        """Give the ids of all nodes online now; none for an unknown run."""

    @abstractmethod
    async def create_run(self, run: Run, fab: Fab | None = None) -> int:
        """Store a run and its bundle; give the run's new id. Raises LimitReached."""

    @abstractmethod
    async def get_run(self, run_id: int) -> Run | None:
        """Give a run, None when it is unknown."""

    @abstractmethod
    async def get_fab(self, fab_hash: str) -> Fab | None:
        """Give a bundle by its SHA-256 in hex, None when it is unknown."""

    @abstractmethod
    async def store_task_ins(self, tasks: Sequence[Task]) -> Sequence[str]:
        """Queue TaskIns for their nodes, all or none; give their ids in order.

        The id is "" for a task of an unknown run, which is not stored. Raises LimitReached.
        """

    @abstractmethod
    async def await_task_ins(self, node_id: int) -> bool:
        """Return True when there may be a TaskIns to take for the node, False when it is not known.

        A node that is deleted meanwhile is not known any more. False as well when the node came
        with a newer pull (see `heartbeat`). Of several pulls of anonymous nodes, which cannot be
        told apart, the one that came last is given the first task.
        """

    @abstractmethod
    def arrivals(self, node_ids: Collection[int]) -> AbstractContextManager[Arrivals]:
        """Hear inside the block of tasks for any of these nodes.

        `Arrivals.next()` gives one after the other, first those that have a task already; a node is
        given again once the caller is `done` with it.
        """

    @abstractmethod
    async def take_task_ins(self, node_id: int, connection: str = "") -> Task | None:
        """Take the node's oldest queued TaskIns; None when there is none, or the node is not known.

        `connection` is where it will be sent. A node that asks again over another connection (or
        an unknown one, "") without having answered what it was handed never received it: that
        task is queued again first, a few times at most. Anonymous nodes cannot be told apart, so
        this is not done for them.
        """

    @abstractmethod
    async def confirm_task_ins(self, task: Task) -> None:
        """Note that a taken TaskIns was handed over."""

    @abstractmethod
    async def put_back_task_ins(self, task: Task) -> None:
        """Queue a taken TaskIns again, in its old place."""

    @abstractmethod
    async def store_task_res(self, task: Task) -> str:
        """Store the answer to the TaskIns that `ancestry[0]` names; give the answer's id.

        A second answer to the same TaskIns is not stored: the first one's id is given.
        Raises NotTaken for an unknown run, for a TaskIns that is not waited for (any more), and
        for one that was meant for another node; LimitReached for one that would be stored.
        """

    @abstractmethod
    async def store_error(self, task_id: str, error: TaskError, *, producer: int | None) -> bool:
        """Store an error as the answer to a TaskIns; say whether anybody still waited for it.

        `producer` is who sent the answer that was wrong, where that is known: an error for
        another node's task is not stored. There is always room for an error.
        """

    @abstractmethod
    async def await_task_res(
        self,
        task_ids: Collection[str],
        enough: int,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        """Return when every one of the TaskIns is settled, or `enough` bytes of answers wait.

        Settled: answered, or an error would stand in, or unknown. `progress` is told how many are
        not, at first and whenever one more is settled.
        """

    @abstractmethod
    async def take_task_res(self, task_ids: Collection[str], limit: int) -> Sequence[Task]:
        """Take the answers to these TaskIns, errors standing in, up to `limit` bytes in all."""

    @abstractmethod
    async def confirm_task_res(self, answers: Sequence[Task]) -> None:
        """Delete taken answers and what they answer: they were handed over."""

    @abstractmethod
    async def put_back_task_res(self, answers: Sequence[Task]) -> None:
        """Make taken answers available again."""

    @abstractmethod
    async def census(self) -> Census:
        """Count what is in the store.

        It may be asked for every few seconds: with 100,000 tasks it takes about 0.1 s, of which
        other calls do not wait for more than a millisecond. For that it is no atomic step: a task
        may move while others are counted.
        """

    @asynccontextmanager
    async def handing_over_task_ins(self, task: Task) -> AsyncIterator[None]:
        """Confirm a taken TaskIns when the block ends well, put it back when it does not."""
        try:
            yield
        except BaseException:
            with acknowledging():
                await self.put_back_task_ins(task)
            raise
        with acknowledging():
            await self.confirm_task_ins(task)

    @asynccontextmanager
    async def handing_over_task_res(self, answers: Sequence[Task]) -> AsyncIterator[None]:
        """Confirm taken answers when the block ends well, put them back when it does not."""
        try:
            yield
        except BaseException:
            with acknowledging():
                await self.put_back_task_res(answers)
            raise
        with acknowledging():
            await self.confirm_task_res(answers)


def acknowledging() -> trio.CancelScope:
    """Shield the acknowledgements of what a cancelled call held, but not for ever."""
    return trio.CancelScope(shield=True, deadline=trio.current_time() + ACKNOWLEDGE_TIMEOUT)
