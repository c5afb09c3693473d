"""An open transaction about messages, and what a database has to add to it by its own means."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from typing import ClassVar

from superlink_trio.state.sql import transaction as sql
from superlink_trio.state.sql.transaction import Reading

__all__ = ["Reading", "Transaction"]


class Transaction(sql.Transaction):
    """A transaction that writes."""

    WHOLE: ClassVar[str]
    """A condition: all objects are here of the tree that is called `tree`."""

    @abstractmethod
    def serve(self) -> bool:
        """Note that this process serves nodes, runs and messages; say whether no other does.

        Raises CannotOpen where no second one may.
        """

    @abstractmethod
    def is_served_elsewhere(self) -> bool:
        """Say whether another process that lives serves them."""

    @abstractmethod
    def add_tree(self, digest: bytes, content: bytes, numbers: Collection[int]) -> int:
        """Add a tree of objects, by their numbers, some of which may be missing; give its own.

        Nothing is added where another process has just added an equal one.
        """

    @abstractmethod
    def brought(self, number: int) -> None:
        """Note that an object is here now, which trees have missed."""

    @abstractmethod
    def release(self, root: int | None, tree_id: int | None) -> None:
        """Delete a root and a tree that a message has referred to, if nothing else does.

        Where others refer to objects at the same moment that is left to `collect`.
        """

    @abstractmethod
    def collect(self, most: int) -> bool:
        """Delete so much of what `release` has left; say whether there may be more."""

    @abstractmethod
    def keep_run(self, token: bytes, heard_at: float) -> None:
        """Let other processes know when a run's process, by its token, was heard of last."""

    @abstractmethod
    def run_heard_at(self, run_id: int) -> float:
        """Say when others have heard of a run's process last; 0.0 where there are none."""
