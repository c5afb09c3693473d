"""The database: looked at before it is touched, made or brought up to date, and joined."""

from __future__ import annotations

import time

import attrs
import psycopg

from superlink_trio.state.durable.engine import Locked
from superlink_trio.state.interface import HEARTBEAT_TIMEOUT, CannotOpen, StateUnavailable
from superlink_trio.state.postgres import schema
from superlink_trio.state.postgres.clock import DatabaseClock
from superlink_trio.state.postgres.faults import faults_in_words, may_pass
from superlink_trio.state.postgres.processes import Locks, Watch, own_name
from superlink_trio.state.postgres.server import Server
from superlink_trio.state.postgres.steps import Steps
from superlink_trio.state.sql import nodes, sweeping

_OLDEST = 140000, "14"

# Seconds between two attempts to reach a server that may be just starting.
_AGAIN_AFTER = 0.2


@attrs.frozen
class Opened:
    """A database that is ready: a connection for the writer, and who we are in it."""

    connection: psycopg.Connection
    locks: Locks
    me: int


def look(url: str) -> int:
    """Give the version of a database's tables, 0 where there are none; nothing is changed.

    Raises CannotOpen.
    """
    server = Server(url)
    try:
        connection = server.connect()
    except StateUnavailable as error:
        raise CannotOpen(str(error)) from error
    with faults_in_words(server.name, CannotOpen), connection:
        return _check(connection, server)


def open_database(server: Server, clock: DatabaseClock | None, now: float, grace: float) -> Opened:
    """Make or migrate the tables, and take over what ended processes left.

    With `clock` it is the database's time, which is measured, otherwise `now`. `grace`: see
    `PostgresState`.
    Raises CannotOpen, and Locked where it may be tried again.
    """
    connection = _reach(server)
    with faults_in_words(server.name, CannotOpen):
        try:
            _check(connection, server)
            locks = Locks.of(connection)
            if clock is not None:
                clock.measure(connection)
                now = clock()
            return Opened(connection, locks, _join(connection, server, locks, now, grace))
        except BaseException:
            connection.close()
            raise


def _reach(server: Server) -> psycopg.Connection:
    try:
        return server.connect()
    except StateUnavailable as error:
        cause = error.__cause__
        if cause is not None and not (isinstance(cause, psycopg.Error) and may_pass(cause)):
            raise CannotOpen(str(error)) from cause
        time.sleep(_AGAIN_AFTER)
        raise Locked(str(error)) from cause


def _check(connection: psycopg.Connection, server: Server) -> int:
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


def _join(
    connection: psycopg.Connection, server: Server, locks: Locks, now: float, grace: float
) -> int:
    with connection.transaction():
        locks.lock_registry(connection)
        _check(connection, server)
        schema.migrate(connection)
        tx = Steps(connection, Watch(locks), me=0, now=now)
        others = [process for process, _ in sweeping.others(tx, 0)]
        if not any(locks.is_alive(tx, process) for process in others):
            # Nobody else is at work, and the nodes had no one to talk to.
            if _is_up_for(tx, grace):
                sweeping.evict(tx, others)
            nodes.give_time(tx, HEARTBEAT_TIMEOUT)
            schema.recount(connection)
        nodes.bound(tx)
        return _register(tx, locks)


def _is_up_for(tx: Steps, seconds: float) -> bool:
    """Say whether all who live have had the time to connect since PostgreSQL was started."""
    query = "SELECT clock_timestamp() - pg_postmaster_start_time() >= make_interval(secs => ?)"
    return bool(tx.value(query, seconds))


def _register(tx: Steps, locks: Locks) -> int:
    me = sweeping.register(tx, own_name())
    # Before anybody can see it without.
    locks.keep(tx.connection, me)
    return me


def join_again(connection: psycopg.Connection, locks: Locks, me: int, *, anew: bool) -> int:
    """Be alive over a new connection; give our id, a new one where others took us for dead.

    `anew`: take a new one in any case; what is under way here is then queued again like that of a
    process that has ended.
    """
    with connection.transaction():
        tx = Steps(connection, Watch(locks), me=me)
        if not anew:
            locks.keep(connection, me)
            if sweeping.is_registered(tx, me):
                return me
        locks.lock_registry(connection)
        return _register(tx, locks)
