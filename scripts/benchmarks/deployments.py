"""SuperLinks and what they keep their state in: one by itself, or several over one database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import attrs
import trio
from peering.processes import SuperLink

from benchmarks.comparison import Bench, NotMeasured, Side, superlink

if TYPE_CHECKING:
    from peering.postgresql import Server


@attrs.frozen
class Deployment:
    """A kind of store, and how many SuperLinks there are over it."""

    store: str
    links: int = 1

    @property
    def name(self) -> str:
        """What it is called in a row."""
        return self.store if self.links == 1 else f"{self.store}, {self.links} SuperLinks"


MEMORY, SQLITE, POSTGRESQL = "memory", "SQLite", "PostgreSQL"


@asynccontextmanager
async def postgresql() -> AsyncIterator[Server]:
    """Run a PostgreSQL with its own defaults, for as long as the block: `fsync` is on.

    Raises NotMeasured where it cannot be run.
    """
    if find_spec("psycopg") is None:
        raise NotMeasured("psycopg is not installed (an extra of this package: postgres)")
    from peering.postgresql import CannotRun, Server, short_folder

    with short_folder() as folder:
        server = Server(folder / "pg")
        try:
            await trio.to_thread.run_sync(server.start)
        except CannotRun as error:
            raise NotMeasured(str(error)) from None
        try:
            yield server
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(server.kill)


@asynccontextmanager
async def deployed(
    bench: Bench, side: Side, deployment: Deployment, server: Server, *options: str
) -> AsyncIterator[list[SuperLink]]:
    """Run a deployment, its store new, for as long as the block. `server` is for PostgreSQL's."""
    database: tuple[str, ...] = ()
    if deployment.store == SQLITE:
        database = side.database(bench.folder)
    elif deployment.store == POSTGRESQL:
        database = ("--database", server.new_schema())
    async with AsyncExitStack() as stack:
        links = (superlink(side, *database, *options) for _ in range(deployment.links))
        yield [await stack.enter_async_context(link) for link in links]
