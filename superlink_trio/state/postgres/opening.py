"""The database: looked at before it is touched, made or brought up to date, and joined."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import attrs
import psycopg

from superlink_trio.state.durable.engine import Locked
from superlink_trio.state.interface import HEARTBEAT_TIMEOUT, CannotOpen, StateUnavailable
from superlink_trio.state.postgres import news, schema
from superlink_trio.state.postgres.clock import DatabaseClock
from superlink_trio.state.postgres.faults import faults_in_words, may_pass
from superlink_trio.state.postgres.processes import Locks, Watch, members, own_name, register
from superlink_trio.state.postgres.server import Server
from superlink_trio.state.postgres.session import Session
from superlink_trio.state.postgres.steps import Steps
from superlink_trio.state.sql import nodes, sweeping
from superlink_trio.state.sql.rows import Collected

_OLDEST = 140000, "14"

# Seconds between two attempts to reach a server that may be just starting.
_AGAIN_AFTER = 0.2


@attrs.frozen
class Opened:
    """A database that is ready: a connection for the writer, and who we are in it."""

    connection: psycopg.Connection
    session: Session
    locks: Locks
    name: str
    me: int


def look(url: str) -> int:
    """Give the version of a database's tables, 0 where there are none; nothing is changed.

    Raises CannotOpen.
    """
    server = Server(url)
    connection = reach(server)
    with faults_in_words(server.name, CannotOpen), connection:
        reach(Server(url, direct=True)).close()
        return check(connection, server)


def open_database(
    server: Server, direct: Server, clock: DatabaseClock | None, now: float, grace: float
) -> Opened:
    """Make or migrate the tables, and take over what ended processes left.

    `direct`: where the connection is made that stays; the other one may be a pool's.
    With `clock` it is the database's time, which is measured, otherwise `now`. `grace`: see
    `PostgresState`.
    Raises CannotOpen, and Locked where it may be tried again.
    """
    with _tried_again(), ExitStack() as undo:
        connection = reach(server)
        undo.callback(connection.close)
        with faults_in_words(server.name, CannotOpen):
            check(connection, server)
            locks = Locks.of(connection)
            if clock is not None:
                clock.measure(connection)
                now = clock()
            with connection.transaction():
                tx = Steps(connection, Watch(locks), me=0, now=now)
                _prepare(tx, server, grace)
                name = own_name()
                me = register(tx, name, None)
                # Before anybody can see it without.
                session = Session(direct, locks, me)
                undo.callback(session.close)
                session.open(reach(direct))
                _check_same(tx, me, server, direct)
        undo.pop_all()
        return Opened(connection, session, locks, name, me)


@contextmanager
def _tried_again() -> Iterator[None]:
    """Raise Locked where a server may be just starting: a pool connects to it with what we ask."""
    try:
        yield
    except Locked:
        raise
    except (CannotOpen, StateUnavailable) as error:
        cause = error.__cause__
        if isinstance(cause, psycopg.Error) and may_pass(cause):
            time.sleep(_AGAIN_AFTER)
            raise Locked(str(error)) from cause
        raise CannotOpen(str(error)) from cause


def reach(server: Server) -> psycopg.Connection:
    """Connect. Raises CannotOpen."""
    try:
        return server.connect()
    except StateUnavailable as error:
        raise CannotOpen(str(error)) from error.__cause__


def check(connection: psycopg.Connection, server: Server) -> int:
    """Refuse a database that is not ours to open; give the version of its tables."""
    oldest, oldest_name = _OLDEST
    info = connection.info
    if info.server_version < oldest:
        raise CannotOpen(
            f"The database {server.name} is served by PostgreSQL "
            f"{info.server_version // 10000}: use {oldest_name} or newer"
        )
    if info.parameter_status("server_encoding") != "UTF8":
        raise CannotOpen(
            f"The database {server.name} is written in {info.parameter_status('server_encoding')}: "
            "create one with ENCODING 'UTF8'"
        )
    found = schema.version(connection)
    if found > len(schema.MIGRATIONS):
        raise CannotOpen(newer(server.name, found))
    return found


def newer(name: str, found: int) -> str:
    """Say that a database has tables which this release does not know."""
    return (
        f"The database {name} was written by a newer release (its schema has version {found}, "
        f"this release knows {len(schema.MIGRATIONS)}): use that release, or another database"
    )


def _prepare(tx: Steps, server: Server, grace: float) -> None:
    """Make or migrate the tables, and take over what ended processes left."""
    tx.connection.execute(server.timeouts.encode())
    locks = tx.watch.locks
    locks.lock_registry(tx.connection)
    found = check(tx.connection, server)
    there = members(tx, locks) if found else []
    alive = [each for each in there if each.alive]
    outdated = found < len(schema.MIGRATIONS)
    if outdated and alive:
        raise CannotOpen(
            f"The database {server.name} is in use by {len(alive)} of an older release (its "
            f"schema has version {found}, this release needs {len(schema.MIGRATIONS)}): stop "
            "all of them first, then start this one"
        )
    schema.migrate(tx.connection)
    if not alive:
        # Nobody else is at work, and the nodes had no one to talk to.
        if outdated or _is_up_for(tx, grace):
            sweeping.evict(tx, [each.process for each in there])
        nodes.give_time(tx, HEARTBEAT_TIMEOUT)
        schema.recount(tx.connection)
    nodes.bound(tx)


def _check_same(tx: Steps, me: int, server: Server, direct: Server) -> None:
    """Refuse a connection that stays where nobody can see by it that this process, `me`, lives."""
    if not any(each.alive for each in members(tx, tx.watch.locks) if each.process == me):
        raise CannotOpen(
            f"The databases {server.name} and {direct.name} are not the same: direct= names "
            "the server that the rest of the URL leads to"
        )


def _is_up_for(tx: Steps, seconds: float) -> bool:
    """Say whether all who live have had the time to connect since PostgreSQL was started."""
    query = "SELECT clock_timestamp() - pg_postmaster_start_time() >= make_interval(secs => ?)"
    return bool(tx.value(query, seconds))


def join_anew(
    connection: psycopg.Connection, server: Server, locks: Locks, name: str, me: int, number: int
) -> int:
    """Give this process another id, and queue again what it had under way by the old one, `me`.

    It goes on to simulate its nodes, and to delete what drivers have got from it. `number`: by
    which it is alive.
    Raises StateUnavailable where a newer release has taken the database over.
    """
    with connection.transaction():
        connection.execute(server.timeouts.encode())
        locks.lock_registry(connection)
        found = schema.version(connection)
        if found > len(schema.MIGRATIONS):
            raise StateUnavailable(newer(server.name, found))
        tx = Steps(connection, Watch(locks), me=0)
        tx.me = register(tx, name, number)
        tx.execute(
            "UPDATE superlink_simulated_node SET process_id = ? WHERE process_id = ?", tx.me, me
        )
        tx.execute(
            "UPDATE superlink_task SET answer_holder = ? WHERE answer_holder = ?"
            f" AND collected > {Collected.NO}",
            *(tx.me, me),
        )
        sweeping.evict(tx, [me])
        news.publish(tx, locks, tx.changes, number)
    return tx.me
