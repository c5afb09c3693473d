"""What differs from one durable store to the next: how it is kept, and where.

An engine gives a `Transaction`, in which everything has a name, and the state makes steps of
names: it knows neither SQL nor files. What may happen is decided by `rules`, inside the engine's
own transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import attrs
import outcome

from superlink_trio.state.census import Census
from superlink_trio.state.durable.changes import Change
from superlink_trio.state.durable.heartbeats import Alive, Heartbeat
from superlink_trio.state.interface import Admission
from superlink_trio.state.limits import StateLimits
from superlink_trio.state.rules import Survey
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import Task, TaskError

Result = TypeVar("Result")


@attrs.frozen
class Taken:
    """A task that was taken; `content` is None where it is large and still to be read."""

    task: Task
    content: bytes | TaskError | None

    def complete(self, content: bytes | TaskError) -> Task:
        """Give the task with its content."""
        return attrs.evolve(self.task, content=content)


class Queries(Protocol):
    """One consistent state of the database, only to be looked at.

    Where a method has the name of one of `State` it does the same.
    """

    def node_of_key(self, public_key: bytes) -> int | None: ...
    def online_nodes(self, run_id: int, alive: Alive, now: float) -> Sequence[int]:
        """Give the nodes that are online now; none for an unknown run."""

    def get_run(self, run_id: int) -> Run | None: ...
    def get_fab(self, fab_hash: str) -> Fab | None: ...
    def count_queued(self, now: float) -> Mapping[int, int]:
        """Count the tasks that may be handed out, by node, who has waited longest first."""

    def read_task(self, task_id: str) -> bytes | TaskError | None:
        """Read a taken TaskIns's content; None when it was closed meanwhile."""

    def read_answer(self, answer_id: str) -> bytes:
        """Read an answer's content."""

    def survey(self, task_ids: Collection[str], alive: Alive, now: float) -> Survey:
        """Tell what is settled from what is worth waiting for."""

    def census(self, alive: Alive, now: float) -> Census:
        """Count what is in the database."""


class Transaction(Queries, Protocol):
    """A transaction that may write. Who waits is notified of what it changed once it is committed.

    Where a method has the name of one of `State` it does the same.
    """

    def create_node(
        self, heartbeat: Heartbeat, public_key: bytes, now: float, limits: StateLimits
    ) -> int:
        """Register a new node, or give the one that the key has, online anew."""

    def create_simulated_node(self, heartbeat: Heartbeat, now: float, limits: StateLimits) -> int:
        """Register a new node that goes with this process."""

    def bind_node(
        self, node_id: int, public_key: bytes, now: float, limits: StateLimits, *, readmit: bool
    ) -> Admission: ...
    def admit_node(
        self, node_id: int, heartbeat: Heartbeat, now: float, limits: StateLimits, *, readmit: bool
    ) -> Admission:
        """Take a heartbeat of a node that this process does not know."""

    def is_registered(self, node_id: int) -> bool:
        """Say whether a node is registered; it is known from then on."""

    def pulled(self, node_id: int) -> None:
        """Notify the other processes that a node pulls here now."""

    def delete_node(self, node_id: int, now: float) -> bool: ...
    def create_run(self, run: Run, fab: Fab | None, limits: StateLimits) -> int: ...
    def store_task_ins(
        self, tasks: Sequence[Task], digests: Sequence[bytes | None], limits: StateLimits
    ) -> Sequence[str]:
        """Queue tasks; `digests` are the SHA-256 of those payloads that are shared."""

    def has_task(self, node_id: int, now: float) -> bool:
        """Say whether a task may be handed to a node."""

    def take_task_ins(self, node_id: int, connection: str, now: float) -> Taken | None: ...
    def confirm_task_ins(self, task: Task, now: float) -> None: ...
    def put_back_task_ins(self, task: Task) -> None: ...
    def store_task_res(self, answer: Task, now: float, limits: StateLimits) -> str: ...
    def store_error(
        self, task_id: str, error: TaskError, producer: int | None, now: float
    ) -> bool: ...
    def take_task_res(
        self, task_ids: Collection[str], limit: int, alive: Alive, now: float
    ) -> Sequence[Taken]: ...
    def confirm_task_res(self, answers: Sequence[Task]) -> None:
        """Note that taken answers were handed over; they may be kept for a moment still."""

    def put_back_task_res(self, answers: Sequence[Task]) -> None: ...
    def purge_collected(self) -> bool:
        """Delete a portion of what was collected before the last `age_collected`.

        Say whether there may be more.
        """

    def age_collected(self) -> bool:
        """Let what was collected since the last time be purged; say whether there is any."""

    def sweep(self, now: float, most_nodes: int) -> bool:
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


class Engine(Protocol):
    """A database, and the other processes over it.

    `open`, `commit` and `close` block: they are called in worker threads, one at a time.
    """

    @property
    def patience(self) -> float:
        """Seconds for which another program's lock is waited for."""

    @property
    def largest_inline(self) -> int:
        """Bytes of a payload up to which equal ones are not worth to be found."""

    @property
    def private(self) -> bool:
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

    def commit(
        self, steps: Sequence[Step[Any]], heartbeats: Mapping[int, Heartbeat], *, durable: bool
    ) -> Committed:
        """Perform the steps in one transaction; it is on the disk when this returns.

        A step that fails fails alone. Without `durable` the transaction survives the end of this
        process but not that of the machine. Raises StateUnavailable when nothing was committed,
        Locked where it may be tried again.
        """

    async def read(self, query: Query[Result]) -> Result:
        """Run a query beside the commits. Raises StateUnavailable."""

    def notify(self, others: Sequence[str]) -> bool:
        """Let other processes, by their names, commit soon; say whether all could be reached."""

    async def next_notice(self) -> None:
        """Return when another process has called `notify`."""
