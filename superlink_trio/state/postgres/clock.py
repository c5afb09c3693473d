"""The database's time, which all machines over it share."""

from __future__ import annotations

import time

import psycopg


class DatabaseClock:
    """Gives the database's time in Unix seconds, by how far it was from ours when we asked."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Give the time."""
        return time.monotonic() + self._ahead

    def measure(self, connection: psycopg.Connection) -> None:
        """Ask what time it is; it was so when half of the way there and back was over."""
        before = time.monotonic()
        row = connection.execute(
            "SELECT extract(epoch FROM clock_timestamp())::double precision"
        ).fetchone()
        assert row is not None, "it has no condition"
        self._ahead = row[0] - (before + time.monotonic()) / 2
