"""The connection that stays: by it others know that this process lives, and it hears of them.

It is the only one that needs a session of its own: all others may come from a pool that lends them
for one transaction each.
"""

from __future__ import annotations

import psycopg
import trio

from superlink_trio.state.interface import StateUnavailable
from superlink_trio.state.postgres.faults import faults_in_words
from superlink_trio.state.postgres.processes import Locks
from superlink_trio.state.postgres.server import Server


class Session:
    """Has a lock, and listens, for as long as its connection lasts.

    `number`: what the lock is known by, this process's for as long as it runs. The thread that
    commits makes the connection anew; Trio's notices that it broke, and nobody else uses it.
    """

    def __init__(self, server: Server, locks: Locks, number: int) -> None:
        self.number = number
        self._server = server
        self._locks = locks
        self._connection: psycopg.Connection | None = None

    def open(self, connection: psycopg.Connection) -> None:
        """Be alive over a new connection, and begin to listen. Blocks.

        Raises StateUnavailable, Locked while a connection that has broken has not ended.
        """
        try:
            with faults_in_words(self._server.name, StateUnavailable):
                self._locks.keep(connection, self.number)
                connection.execute(f"LISTEN {self._locks.channel}".encode())
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def keep(self) -> None:
        """See that there is a connection. Blocks. Raises as `open` does."""
        if self._connection is None:
            self.open(self._server.connect())

    def close(self) -> None:
        """Be alive no more."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def next_notice(self) -> None:
        """Return when another process may have changed something.

        That is as well when the connection is lost. The next commit makes a new one, and brings
        what was said meanwhile: nobody has heard it.
        """
        if self._connection is None:
            # Who waits here has a deadline, after which it commits by itself and comes again.
            await trio.sleep_forever()
        else:
            while not self._hears(self._connection):
                await trio.lowlevel.wait_readable(self._connection.fileno())

    def _hears(self, connection: psycopg.Connection) -> bool:
        heard = False
        try:
            connection.pgconn.consume_input()
        except psycopg.OperationalError:
            self.close()
            return True
        while (notice := connection.pgconn.notifies()) is not None:
            heard = heard or notice.extra != str(self.number).encode()
        return heard
