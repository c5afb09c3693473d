"""A real PostgreSQL for tests.

One serves all tests of a run, whichever worker comes first starts it; `tests/conftest.py` stops it.
Each store that a test makes has a schema of its own in it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
from peering import postgresql

FOLDER = "TESTS_POSTGRES"
"""The environment variable that names the folder of the run's server."""

# Nobody's disk has to survive the machine here; what a crash of PostgreSQL alone does is the same.
_SETTINGS = ("fsync=off", "full_page_writes=off", "max_connections=60", "shared_buffers=32MB")


@attrs.frozen
class Server(postgresql.Server):
    """A PostgreSQL over a folder."""

    settings: Sequence[str] = _SETTINGS

    def start(self) -> None:
        """Make the database if there is none, and serve it. Skips the test where that cannot be."""
        if self._refused.exists():
            pytest.skip(self._refused.read_text()[:500])
        try:
            super().start()
        except postgresql.CannotRun as error:
            self._refused.write_text(str(error))
            pytest.skip(str(error)[:500])

    @property
    def _refused(self) -> Path:
        """Where it is written why it cannot be started."""
        return self.folder.parent / f"{self.folder.name}.refused"


def the_server() -> Server:
    """Give the server of this run of the tests, which is started if it is not."""
    server = Server(Path(os.environ[FOLDER]) / "pg")
    with (server.folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not server.running:
            server.start()
    return server
