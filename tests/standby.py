"""A PostgreSQL and the standby to which it commits synchronously, for tests that let it fail."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import psycopg
from postgresql import Server


@attrs.frozen
class Pair:
    """A primary and its standby."""

    primary: Server
    standby: Server

    @property
    def url(self) -> str:
        """Name both, of which the one is taken that can be written to."""
        return self.primary.url(host=f"{self.primary.folder},{self.standby.folder}")

    def fail_over(self) -> None:
        """Kill the primary, and let the standby take its place."""
        self.primary.kill()
        self.standby.promote()


@contextmanager
def pair_of_servers() -> Iterator[Pair]:
    """Run a pair inside the block."""
    # Not in a folder of pytest: PostgreSQL may be another user, and its socket's path is limited.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        Path(folder).chmod(0o755)
        pair = Pair(Server(Path(folder) / "a"), Server(Path(folder) / "b"))
        pair.primary.start()
        try:
            pair.standby.follow(pair.primary)
            pair.standby.start()
            with psycopg.connect(pair.primary.url(), autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
                connection.execute("SELECT pg_reload_conf()")
            yield pair
        finally:
            for server in (pair.primary, pair.standby):
                if server.running:
                    server.kill()
