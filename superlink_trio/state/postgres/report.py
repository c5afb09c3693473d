"""What is in a PostgreSQL database, counted."""

from __future__ import annotations

from superlink_trio.state.interface import CannotOpen
from superlink_trio.state.postgres.clock import DatabaseClock
from superlink_trio.state.postgres.faults import faults_in_words
from superlink_trio.state.postgres.opening import check, reach
from superlink_trio.state.postgres.processes import Locks, members
from superlink_trio.state.postgres.server import Server, begin_reading
from superlink_trio.state.postgres.transaction import Reading
from superlink_trio.state.sql import report as sql

_SIZE = """SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
    WHERE relkind = 'r' AND relnamespace = (SELECT oid FROM pg_namespace
        WHERE nspname = current_schema())"""


def report(url: str) -> sql.Report:
    """Count what is in a database, which may be in use. Raises CannotOpen."""
    server, clock = Server(url), DatabaseClock()
    connection = reach(server)
    with faults_in_words(server.name, CannotOpen), connection:
        found = check(connection, server)
        if not found:
            raise CannotOpen(
                f"The database {server.name} has no tables of a SuperLink in the first schema of "
                "its search path"
            )
        clock.measure(connection)
        locks = Locks.of(connection)
        begin_reading(connection, server)
        tx = Reading(connection, now=clock())
        return sql.report(
            tx,
            database=server.name,
            schema=found,
            size=tx.value(_SIZE),
            processes=sum(each.alive for each in members(tx, locks)),
            row="ctid",
        )
