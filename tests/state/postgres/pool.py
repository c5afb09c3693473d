"""A real PgBouncer before the tests' PostgreSQL: it lends connections for one transaction each."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from postgresql import Server

_PORT = 6432  # of a socket's name only

# Fewer than a store has that reads, and everybody gets another one each time.
_SETTINGS = """
[databases]
postgres = host={server}
template1 = host={server} dbname=postgres
[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {folder}
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 3
server_round_robin = 1
server_login_retry = 1
logfile = {folder}/log
"""


@contextmanager
def pool(server: Server, schema: str) -> Iterator[str]:
    """Serve a pool in the block; give its URL, but for the database. It leads to a schema.

    The test is skipped where PgBouncer is not installed.
    """
    # Debian has it where only root's PATH leads.
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed (apt-get install pgbouncer)")
    role = f"user_of_{schema}"
    with psycopg.connect(server.url()) as connection:
        connection.execute(f"CREATE ROLE {role} SUPERUSER LOGIN".encode())
        connection.execute(f"ALTER ROLE {role} SET search_path = {schema}".encode())
    with tempfile.TemporaryDirectory(prefix="pool-") as folder:
        Path(folder).chmod(0o755)
        settings = Path(folder) / "settings"
        settings.write_text(_SETTINGS.format(server=server.folder, port=_PORT, folder=folder))
        (Path(folder) / "users").write_text(f'"{role}" ""\n')
        user = "nobody" if os.geteuid() == 0 else None
        if user is not None:
            shutil.chown(folder, user)
        process = subprocess.Popen([program, "-q", settings], user=user, cwd="/")
        try:
            _wait_for(Path(folder) / f".s.PGSQL.{_PORT}", process)
            direct = quote(str(server.folder), safe="")
            yield f"postgresql:///{{}}?host={folder}&port={_PORT}&user={role}&direct={direct}"
        finally:
            process.terminate()
            process.wait()


def _wait_for(socket: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 10
    while not socket.exists():
        assert process.poll() is None, "PgBouncer has ended"
        assert time.monotonic() < until, "PgBouncer does not listen"
