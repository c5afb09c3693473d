"""The connection on which other processes say that they have changed something."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import trio

from superlink_trio.state.interface import StateUnavailable
from superlink_trio.state.postgres.server import Server


class Listener:
    """Hears of other processes; what they changed is in the database.

    `me` gives this process's id, whose own words are no news.
    """

    def __init__(self, server: Server, channel: str, me: Callable[[], int]) -> None:
        self._server = server
        self._channel = channel
        self._me = me
        self._connection: psycopg.Connection | None = None

    def open(self) -> None:
        """Begin to listen. Blocks. Raises StateUnavailable."""
        connection = self._server.connect()
        try:
            connection.execute(f"LISTEN {self._channel}".encode())
        except psycopg.Error as error:
            connection.close()
            raise StateUnavailable(f"{self._server.name}: {error}") from error
        self._connection = connection

    def close(self) -> None:
        """Listen no more."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def next_notice(self) -> None:
        """Return when another process may have changed something.

        Where the connection is lost, that is when there is a new one: what was said meanwhile
        nobody has heard.
        """
        while self._connection is not None:
            await trio.lowlevel.wait_readable(self._connection.fileno())
            if self._hears(self._connection):
                return
        try:
            await trio.to_thread.run_sync(self.open)
        except StateUnavailable:
            # Who waits here has a deadline, after which it looks by itself and comes again.
            await trio.sleep_forever()

    def _hears(self, connection: psycopg.Connection) -> bool:
        try:
            connection.pgconn.consume_input()
        except psycopg.OperationalError:
            self.close()
            return False
        heard = False
        while (notice := connection.pgconn.notifies()) is not None:
            heard = heard or notice.extra != str(self._me()).encode()
        return heard
