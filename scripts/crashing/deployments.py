"""What is killed: processes over a file, or replicas behind a balancer over a PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import attrs
import psycopg
import trio
from peering import postgresql
from peering.balancer import NoBalancer, balancing

from crashing.replicas import Database, Replicas
from crashing.servers import Mortal, Server

# Nobody's disk has to survive the machine; what a crash of PostgreSQL alone does is the same.
_SETTINGS = ("fsync=off", "full_page_writes=off", "shared_buffers=32MB")


class CannotDeploy(Exception):
    """What is needed is not on this machine; the message says what to install."""


@attrs.frozen
class Deployment:
    """What is killed, and how SQL is run on its database."""

    servers: Sequence[Mortal]
    execute: Callable[[str], None]


@asynccontextmanager
async def over_a_file(
    folder: Path, servers: Callable[[str], Sequence[Mortal]]
) -> AsyncIterator[Deployment]:
    """Give what `servers` makes of the path of a file in the folder."""
    database = folder / "state.db"

    def execute(sql: str) -> None:
        with closing(sqlite3.connect(database)) as connection:
            connection.executescript(sql)

    yield Deployment(servers(str(database)), execute)


@asynccontextmanager
async def behind_a_balancer(folder: Path, *, restart_database: bool) -> AsyncIterator[Deployment]:
    """Give two driver-api and three fleet-api. Raises CannotDeploy.

    `restart_database`: whether PostgreSQL is killed as well.
    """
    # PostgreSQL does not run as root.
    await trio.Path(folder).chmod(0o755)
    server = postgresql.Server(folder / "pg", _SETTINGS)

    def execute(sql: str) -> None:
        with psycopg.connect(server.url()) as connection:
            connection.execute(sql.encode())

    try:
        if not restart_database:
            await trio.to_thread.run_sync(server.start)
        async with balancing(folder) as balancer:
            servers = [
                Server(server.url(), [place.side], place.options)
                for place in balancer.of("driver", "fleet")
            ]
            database = Database(server) if restart_database else None
            yield Deployment([Replicas(servers, balancer.addresses, database)], execute)
    except (NoBalancer, postgresql.CannotRun) as error:
        raise CannotDeploy(str(error)) from error
    finally:
        if server.running:
            server.kill()
