"""`SqliteEngine`: one file, or memory, as the durable state wants it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import trio

from superlink_trio.state.durable.engine import Committed
from superlink_trio.state.durable.heartbeats import Heartbeat
from superlink_trio.state.sqlite.committing import Committer
from superlink_trio.state.sqlite.opening import Database, look, open_database
from superlink_trio.state.sqlite.presence import Presence
from superlink_trio.state.sqlite.readers import Readers
from superlink_trio.state.sqlite.steps import Queries, Steps
from superlink_trio.state.sqlite.task_ins import INLINE

Result = TypeVar("Result")


class SqliteEngine:
    """See `durable.engine.Engine`."""

    largest_inline = INLINE

    def __init__(self, database: Database) -> None:
        self._database = database
        self._readers = Readers(database)
        self._presence: Presence | None = None
        self._committer: Committer | None = None

    @property
    def patience(self) -> float:
        return self._database.patience

    @property
    def private(self) -> bool:
        """See `Engine`: a database in memory belongs to one connection."""
        return self._database.in_memory

    @property
    def reading(self) -> bool:
        return self._readers.limiter.borrowed_tokens > 0

    def open(self, now: float) -> None:
        name = ""
        look(self._database)
        if not self._database.in_memory:
            self._database.create()
            self._presence = Presence(self._database.path)
            name = self._presence.name
        try:
            opened = open_database(self._database, name, now)
        except BaseException:
            self._leave()
            raise
        self._committer = Committer(self._database, opened, self._presence)
        self._readers.open(opened.identity)

    def close(self) -> None:
        self._readers.close()
        if self._committer is not None:
            self._committer.close()
        self._leave()

    def _leave(self) -> None:
        if self._presence is not None:
            self._presence.close()
            self._presence = None

    def commit(
        self,
        steps: Sequence[Callable[[Steps], Any]],
        heartbeats: Mapping[int, Heartbeat],
        *,
        durable: bool,
    ) -> Committed:
        assert self._committer is not None, "only what is open is written to"
        return self._committer.commit(steps, heartbeats, durable=durable)

    async def read(self, query: Callable[[Queries], Result]) -> Result:
        return await self._readers.read(query)

    def notify(self, others: Sequence[str]) -> bool:
        return self._presence is None or self._presence.notify(others)

    async def next_notice(self) -> None:
        if self._presence is None:
            await trio.sleep_forever()
        else:
            await self._presence.next_notice()
