"""One commit, in a worker thread: what others wrote, the heartbeats, then step after step."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Generic, TypeVar

import attrs
import outcome

from superlink_trio.state.durable.engine import Change, Committed, Performed
from superlink_trio.state.durable.heartbeats import Heartbeat
from superlink_trio.state.interface import StateUnavailable
from superlink_trio.state.sql import nodes, sweeping, task_res
from superlink_trio.state.sql.steps import Steps

Tx = TypeVar("Tx", bound=Steps)

_log = logging.getLogger(__name__)


@attrs.frozen
class Begun(Generic[Tx]):
    """A transaction that has begun."""

    transaction: Callable[[], Tx]
    """Gives it to a step."""
    others: Sequence[str]
    """The names of the other processes over the database."""
    news: Sequence[Change]
    """What they have written for this one."""
    missed_news: bool


class _Undone(Exception):
    """A step failed, and nothing of the transaction may stay."""


class Committer(ABC, Generic[Tx]):
    """The writing connection. Used by one thread at a time."""

    SHARES_MESSAGES: ClassVar[bool]
    """See `durable.engine.Engine.shares_messages`."""

    def commit(
        self,
        steps: Sequence[Callable[[Tx], Any]],
        heartbeats: Mapping[int, Heartbeat],
        *,
        durable: bool,
    ) -> Committed:
        """Commit as `durable.engine.Committer` says.

        Hardly any step fails, and in PostgreSQL a savepoint for each would cost a third of what the
        steps do. So there are none, unless a step has failed: then all are performed again.
        """
        try:
            return self._commit_with(self._perform, steps, heartbeats, durable=durable)
        except _Undone:
            return self._commit_with(self._perform_alone, steps, heartbeats, durable=durable)

    def _commit_with(
        self,
        perform: Callable[[Tx, Callable[[Tx], Any]], Performed],
        steps: Sequence[Callable[[Tx], Any]],
        heartbeats: Mapping[int, Heartbeat],
        *,
        durable: bool,
    ) -> Committed:
        with self._transaction(durable=durable) as begun:
            writing = begun.transaction()
            nodes.write_heartbeats(writing, heartbeats)
            performed = [perform(begun.transaction(), step) for step in steps]
            told = self._for_others(performed) if begun.others else ()
            if told:
                self._publish(writing, told)
        news = [*begun.news, *writing.changes]
        return Committed(performed, news, begun.missed_news, begun.others, bool(told))

    def _for_others(self, performed: Sequence[Performed]) -> Sequence[Change]:
        changes = (change for each in performed for change in each.changes)
        told = (change.for_others(messages=self.SHARES_MESSAGES) for change in changes)
        return [change for change in told if change is not None]

    def _perform(self, tx: Tx, step: Callable[[Tx], Any]) -> Performed:
        try:
            return Performed(outcome.Value(step(tx)), tx.changes)
        except Exception as error:
            if self._took_everything(error):
                raise
            raise _Undone from error

    def _perform_alone(self, tx: Tx, step: Callable[[Tx], Any]) -> Performed:
        tx.execute("SAVEPOINT step")
        try:
            result = step(tx)
        except Exception as error:
            if self._took_everything(error):
                raise
            tx.execute("ROLLBACK TO step")
            tx.execute("RELEASE step")
            return Performed(outcome.Error(self._in_words(error)), ())
        tx.execute("RELEASE step")
        return Performed(outcome.Value(result), tx.changes)

    def _in_words(self, error: Exception) -> Exception:
        words = self._words_for(error)
        if words is None:
            return error
        unavailable = StateUnavailable(words)
        unavailable.__cause__ = error
        return unavailable

    def _leave(self) -> None:
        """Leave nothing under way, and no trace of this process."""
        try:
            self.commit([task_res.purge_all, _leave], {}, durable=True)
        except StateUnavailable as error:
            _log.warning("Not closed well: %s", error)

    @abstractmethod
    def _transaction(self, *, durable: bool) -> AbstractContextManager[Begun[Tx]]:
        """Begin a transaction, and commit it when the block ends well.

        Raises StateUnavailable, or Locked, with nothing changed.
        """

    @abstractmethod
    def _took_everything(self, error: Exception) -> bool:
        """Say whether an error of a step has undone, or has to undo, the whole transaction."""

    @abstractmethod
    def _words_for(self, error: Exception) -> str | None:
        """Say what an error means to an operator; None when it is not one of the database."""

    @abstractmethod
    def _publish(self, tx: Tx, changes: Sequence[Change]) -> None:
        """Write down what the other processes have to know."""


def _leave(tx: Steps) -> None:
    sweeping.evict(tx, [tx.me])
