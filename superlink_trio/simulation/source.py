"""What differs between the generations of Flower, for the engine: the one seam between them.

A source is where simulated nodes are registered, their tasks come from, and their answers go to.
`tasks` is the one of Flower 1.8 to 1.11, `messages` that of 1.23 and later. Whatever it is called
there, an instruction is a `Task` here; what its content is, only apps know.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol, TypeVar

import trio

from superlink_trio.state import LimitReached, StateUnavailable
from superlink_trio.wire.runs import Scalar
from superlink_trio.wire.tasks import Task, TaskError

_T = TypeVar("_T")

NO_TTL = "ttl must be a number of seconds above 0"
"""What is wrong with an answer that has none."""

_RETRY_AFTER = 1.0
"""Seconds before a call of the state that was not available is tried again."""


class Waiting(Protocol):
    """The nodes that may have a task to take; `len` says how many."""

    def __len__(self) -> int: ...

    async def next(self) -> int:
        """Wait for a node that may have a task, and give it: who has waited longest comes first.

        If cancelled, nothing is lost. Raises StateUnavailable.
        """

    def done(self, node_id: int) -> None:
        """Say that a node that was given may be given again, for its next task."""


class Source(ABC):
    """Nodes, tasks and answers. Calls wait while the state is not available."""

    @abstractmethod
    def now(self) -> float:
        """Give the time in Unix seconds."""

    async def prepare(self) -> None:  # noqa: B027 - there may be nothing to prepare
        """Get ready for a life of the engine. Raises AppNotLoaded."""

    # Nodes

    @abstractmethod
    async def create_node(self, partition_id: int) -> int:
        """Register the node of a partition; give its id. Raises StateUnavailable, LimitReached."""

    @abstractmethod
    def attend(self, node_id: int) -> AbstractContextManager[object]:
        """Keep a node online inside the block, as far as that takes no task of its own."""

    @abstractmethod
    async def keep_online(self, node_ids: Collection[int]) -> None:
        """Keep nodes online until cancelled."""

    @abstractmethod
    async def delete_node(self, node_id: int) -> None:
        """Forget a node for good. Raises StateUnavailable."""

    # Tasks

    @abstractmethod
    def arrivals(self, node_ids: Collection[int]) -> AbstractAsyncContextManager[Waiting]:
        """Tell inside the block which of the nodes may have a task."""

    @abstractmethod
    def take(self, node_id: int) -> AbstractAsyncContextManager[Task | None]:
        """Take a node's oldest task, for the block; it comes again where the block raises."""

    @abstractmethod
    async def config_of(self, run_id: int) -> Mapping[str, Scalar]:
        """Give what an app is told of its run. Raises ValueError where that cannot be used."""

    @abstractmethod
    def fault(self, task: Task, content: bytes | TaskError, ttl: float) -> str | None:
        """Say what is wrong with an answer, if anything is."""

    @abstractmethod
    async def answer(self, task: Task, content: bytes | TaskError, ttl: float) -> bool:
        """Store what an app has made of a task; say whether it is its answer. Raises NotTaken."""

    @abstractmethod
    async def fail(self, task: Task, error: TaskError) -> None:
        """Store an error in the place of a task's answer."""


async def when_available(call: Callable[[], Awaitable[_T]], *, shield: bool = False) -> _T:
    """Retry a call of the state until it is available; its log says what is wrong with it.

    With `shield` only the pauses in between can be cancelled.
    """
    return await _retried(call, StateUnavailable, shield=shield)


async def when_there_is_room(call: Callable[[], Awaitable[_T]]) -> _T:
    """Do the same, where there may be no room for it either. Only the pauses can be cancelled."""
    return await _retried(call, StateUnavailable, LimitReached, shield=True)


async def _retried(
    call: Callable[[], Awaitable[_T]], *expected: type[Exception], shield: bool
) -> _T:
    while True:
        try:
            with trio.CancelScope(shield=shield):
                return await call()
        except expected:
            await trio.sleep(_RETRY_AFTER)
