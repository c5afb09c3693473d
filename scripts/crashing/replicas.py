"""Several processes behind one address, over a PostgreSQL that may be killed as well."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence

import trio
from peering import postgresql

from crashing.record import Life
from crashing.servers import Server


class Database:
    """A PostgreSQL that is started again whenever it was killed."""

    def __init__(self, server: postgresql.Server) -> None:
        self._server = server
        self._started = trio.Event()
        self._killed = trio.Event()

    @property
    def lives(self) -> bool:
        """Whether it serves now."""
        return self._started.is_set()

    async def alive(self) -> None:
        """Wait until it serves."""
        await self._started.wait()

    def kill(self) -> None:
        """Let it end as in a crash. It is alive."""
        self._started = trio.Event()
        self._killed.set()

    async def serve(self) -> None:
        """Live again and again, until cancelled. Raises CannotRun."""
        while True:
            await trio.to_thread.run_sync(self._server.start)
            self._killed = trio.Event()
            self._started.set()
            await self._killed.wait()
            await trio.to_thread.run_sync(self._server.kill)


class Replicas:
    """Servers behind a balancer, which is all that clients know of them.

    Their life ends with that of any of them: nobody can tell who gave an answer. With `database`
    that is one of those to be killed.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        addresses: Mapping[str, str],
        database: Database | None = None,
    ) -> None:
        self.sides = list(addresses)
        self.servers = servers
        self._database = database
        self._life = Life(addresses)

    async def alive(self) -> Life:
        """Wait until every side is served by one at least; give the life in which it is."""
        if self._database is not None:
            await self._database.alive()
        for side in self.sides:
            async with trio.open_nursery() as first:
                for server in self.servers:
                    if side in server.sides:
                        first.start_soon(_cancel_when_alive, server, first.cancel_scope)
        return self._life

    async def whole(self) -> None:
        """Wait until all of them serve."""
        for server in self.servers:
            await server.alive()

    def kill(self) -> None:
        """Kill one that is alive."""
        mortals: list[Server | Database] = [server for server in self.servers if server.lives]
        if self._database is not None and self._database.lives:
            mortals.append(self._database)
        random.choice(mortals).kill()
        self._life.killed_at = time.monotonic()
        self._life = Life(self._life.addresses)

    async def serve(self) -> None:
        """Let all of them live again and again, until cancelled. Raises Misbehaved."""
        async with trio.open_nursery() as nursery:
            if self._database is not None:
                nursery.start_soon(self._database.serve)
                await self._database.alive()
            for server in self.servers:
                nursery.start_soon(server.serve)


async def _cancel_when_alive(server: Server, scope: trio.CancelScope) -> None:
    await server.alive()
    scope.cancel()
