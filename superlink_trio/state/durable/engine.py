"""What differs from one durable store to the next: how it is kept, and where.

An engine gives a `Transaction`, in which everything has a name, and the state makes steps of
names: it knows neither SQL nor files. What may happen is decided by `rules`, inside the engine's
own transaction. What a step changed is told to those who wait, once it is committed.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import attrs
import outcome
import trio

from superlink_trio.state.census import Census
from superlink_trio.state.durable.heartbeats import Alive, Heartbeat
from superlink_trio.state.interface import Admission, StateUnavailable
from superlink_trio.state.limits import StateLimits
from superlink_trio.state.rules import Survey
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import Task, TaskError

if TYPE_CHECKING:
    from superlink_trio.state.messages.durable.engine import MessageQueries, MessageTransaction

Result = TypeVar("Result")
Tx_co = TypeVar("Tx_co", covariant=True)


class ChangeKind(enum.IntEnum):
    """What may have changed. The numbers are stored: they keep their meaning for ever."""

    QUEUED = 1
    """A TaskIns can be taken; key: its node."""
    HANDED_OVER = 2
    """A TaskIns was handed over, so that it may turn out to be lost; key: its node."""
    SETTLED = 3
    """A TaskIns is answered or gone; key: its id, value: the size of the answer."""
    GONE = 4
    """A node is not registered any more; key: the node."""
    KNOWN = 5
    """A node is registered; key: the node, value: until when it is online."""
    EMPTY = 6
    """Nothing can be taken; key: the node, value: over which connection, None: over any."""
    BOUND = 7
    """A node belongs to a key; key: the node, value: the key."""
    PULLED = 8
    """A node came with a pull to another process than before; key: the node."""

    # Of Flower 1.23 and later. Other processes are told the key, and look for themselves.

    SUPERNODE = 9
    """A node changed; key: the node, value: its record, None: it is not registered any more."""
    APP_RUN = 10
    """A run changed; key: the run, value: its record and the SHA-256 of its token."""
    LOGGED = 11
    """A run has logged something; key: the run, value: when."""
    INSTRUCTION = 12
    """An instruction can be taken; key: its node."""
    REPLY = 13
    """The reply to an instruction can be taken; key: the instruction."""
    SUPERNODE_PULLED = 14
    """A node came with a pull to another process than before; key: the node."""
    SUPERNODE_SEEN = 15
    """A node was looked up; key: the node, value: its record, None: it is not registered."""
    APP_RUN_SEEN = 16
    """A run was looked up; key: the run, value: a `StoredRun`, None: it is not known."""
    ALL_SEEN = 17
    """All nodes, and all runs that are not over, were looked up; value: a `Resumed`."""


_OWN_CACHE = frozenset(
    {
        *(ChangeKind.KNOWN, ChangeKind.EMPTY, ChangeKind.BOUND),
        *(ChangeKind.SUPERNODE_SEEN, ChangeKind.APP_RUN_SEEN, ChangeKind.ALL_SEEN),
    }
)

_OF_MESSAGES = frozenset(
    {
        *(ChangeKind.SUPERNODE, ChangeKind.APP_RUN, ChangeKind.LOGGED),
        *(ChangeKind.INSTRUCTION, ChangeKind.REPLY, ChangeKind.SUPERNODE_PULLED),
    }
)


@attrs.frozen
class Change:
    """One thing that changed."""

    kind: ChangeKind
    key: Any
    value: Any = None

    def for_others(self, *, messages: bool) -> Change | None:
        """Give what other processes over the store have to know; the rest is our own cache.

        `messages`: whether some of them may serve Flower 1.23 and later.
        """
        if self.kind in _OF_MESSAGES:
            return Change(self.kind, self.key) if messages else None
        return None if self.kind in _OWN_CACHE else self


@attrs.frozen
class Taken:
    """A task that was taken; `content` is None where it is large and still to be read."""

    task: Task
    content: bytes | TaskError | None


class Queries(Protocol):
    """One consistent state of the database, only to be looked at.

    Where a method has the name of one of `State` it does the same. `alive` is what the database
    does not say yet about who is online.
    """

    now: float
    """Unix seconds: when the call came."""
    limits: StateLimits

    @property
    def messages(self) -> MessageQueries:
        """What there is to ask about Flower 1.23 and later."""

    def node_of_key(self, public_key: bytes) -> int | None: ...
    def online_nodes(self, run_id: int, alive: Alive) -> Sequence[int]: ...
    def get_run(self, run_id: int) -> Run | None: ...
    def get_fab(self, fab_hash: str) -> Fab | None: ...
    def census(self, alive: Alive) -> Census: ...

    def count_queued(self) -> Mapping[int, int]:
        """Count the tasks that may be handed out, by node, who has waited longest first."""

    def read_task(self, task_id: str) -> bytes | TaskError | None:
        """Read a taken TaskIns's content; None when it was closed meanwhile."""

    def read_answer(self, answer_id: str) -> bytes:
        """Read an answer's content."""

    def survey(self, task_ids: Collection[str], alive: Alive) -> Survey:
        """Tell what is settled from what is worth waiting for."""


class Transaction(Queries, Protocol):
    """A transaction that may write. Who waits is notified of what it changed once it is committed.

    Where a method has the name of one of `State` it does the same.
    """

    @property
    def messages(self) -> MessageTransaction:
        """What may be done to nodes, runs and messages of Flower 1.23 and later."""

    def create_node(self, heartbeat: Heartbeat, public_key: bytes) -> int: ...
    def create_simulated_node(self, heartbeat: Heartbeat) -> int: ...
    def bind_node(self, node_id: int, public_key: bytes, *, readmit: bool) -> Admission: ...
    def delete_node(self, node_id: int) -> bool: ...
    def create_run(self, run: Run, fab: Fab | None) -> int: ...
    def take_task_ins(self, node_id: int, connection: str) -> Taken | None: ...
    def confirm_task_ins(self, task: Task) -> None: ...
    def put_back_task_ins(self, task: Task) -> None: ...
    def store_task_res(self, answer: Task) -> str: ...
    def store_error(self, task_id: str, error: TaskError, producer: int | None) -> bool: ...
    def put_back_task_res(self, answers: Sequence[Task]) -> None: ...

    def admit_node(self, node_id: int, heartbeat: Heartbeat, *, readmit: bool) -> Admission:
        """Take a heartbeat of a node that this process does not know."""

    def is_registered(self, node_id: int) -> bool:
        """Say whether a node is registered; it is known from then on."""

    def pulled(self, node_id: int) -> None:
        """Notify the other processes that a node pulls here now."""

    def store_task_ins(
        self, tasks: Sequence[Task], digests: Sequence[bytes | None]
    ) -> Sequence[str]:
        """Queue tasks; `digests` are the SHA-256 of those payloads that are shared."""

    def has_task(self, node_id: int) -> bool:
        """Say whether a task may be handed to a node."""

    def take_task_res(self, task_ids: Collection[str], limit: int, alive: Alive) -> Sequence[Taken]:
        """Take answers, errors standing in, up to `limit` bytes in all."""

    def confirm_task_res(self, answers: Sequence[Task]) -> None:
        """Note that taken answers were handed over; they may be kept for a moment still."""

    def purge_collected(self) -> bool:
        """Delete a portion of what was collected before the last `age_collected`.

        Say whether there may be more.
        """

    def age_collected(self) -> bool:
        """Let what was collected since the last time be purged; say whether there is any."""

    def sweep(self) -> bool:
        """Delete a portion of what nobody can ask for any more; say whether there may be more.

        As many deleted nodes stay as nodes may.
        """

    def give_back_space(self) -> bool:
        """Give a portion of the free space back to the disk; say whether there may be more."""

    def evict_ended(self) -> None:
        """Queue again what processes that have ended had under way, and forget them."""


Query: TypeAlias = Callable[[Queries], Result]
Step: TypeAlias = Callable[[Transaction], Result]


@attrs.frozen
class Performed:
    """What came of one step."""

    result: outcome.Outcome[Any]
    changes: Sequence[Change]


@attrs.frozen
class Committed:
    """What came of one commit."""

    performed: Sequence[Performed]
    news: Sequence[Change]
    """What other processes changed since the last commit, and nodes that turned out to be gone."""
    missed_news: bool
    """Whether some of it was deleted before it was read, or was not written for us at all."""
    others: Sequence[str]
    """The names of the other processes over the database."""
    told_others: bool
    """Whether something was written for them, of which they have to be notified."""


class Committer(Protocol[Tx_co]):
    """What steps are performed by; they are given its own kind of transaction."""

    def commit(
        self,
        steps: Sequence[Callable[[Tx_co], Any]],
        heartbeats: Mapping[int, Heartbeat],
        *,
        durable: bool,
    ) -> Committed:
        """Perform the steps in one transaction; it is on the disk when this returns.

        A step that fails fails alone. Without `durable` the transaction survives the end of this
        process but not that of the machine. Raises StateUnavailable when nothing was committed,
        Locked where it may be tried again.
        """


class Engine(Committer[Transaction], Protocol):
    """A database, and the other processes over it.

    `open`, `commit` and `close` block: they are called in worker threads, one at a time.
    """

    patience: float
    """Seconds for which another program's lock is waited for."""
    largest_inline: int
    """Bytes of a payload up to which equal ones are not worth to be found."""
    shares_messages: bool
    """Whether several processes may serve nodes, runs and messages of Flower 1.23 and later."""
    private: bool
    """Whether only commits get at the database: no other process does, nor `read`."""

    @property
    def reading(self) -> bool:
        """Whether a worker thread is at work on a query."""

    def open(self, now: float) -> None:
        """Open and migrate the database, and take over what ended processes left.

        Raises CannotOpen, and Locked where it may be tried again.
        """

    def close(self) -> None:
        """Leave nothing under way, and close the database."""

    async def read(self, query: Query[Result]) -> Result:
        """Run a query beside the commits. Raises StateUnavailable."""

    def notify(self, others: Sequence[str]) -> bool:
        """Let other processes, by their names, commit soon; say whether all could be reached."""

    async def next_notice(self) -> None:
        """Return when another process has called `notify`."""


class Busy(Exception):
    """Another process is writing what a step needs. It did nothing, and may be tried again."""


class Locked(StateUnavailable):
    """Another program has the database. Nothing was done, and it may be tried again at once."""


async def patiently(
    patience: float,
    attempt: Callable[[], Result],
    limiter: trio.CapacityLimiter | None = None,
) -> Result:
    """Call `attempt` in a thread until it is not Locked, for `patience` seconds at most.

    It may be cancelled between two attempts. Raises Locked, and what `attempt` raises.
    """
    # What another program does knows nothing of Trio's clock.
    gives_up_at = time.monotonic() + patience
    while True:
        try:
            return await trio.to_thread.run_sync(attempt, limiter=limiter)
        except Locked:
            if time.monotonic() >= gives_up_at:
                raise
