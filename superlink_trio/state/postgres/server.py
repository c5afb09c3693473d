"""A database on a server: how it is named, reached, and reached again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumper

from superlink_trio.state.interface import CannotOpen, StateUnavailable
from superlink_trio.state.postgres.faults import faults_in_words
from superlink_trio.state.sql.transaction import NUL

# What libpq is told unless the URL says it. A peer that is gone without a word is noticed within
# half a minute. Of several hosts the one is taken that can be written to.
_DEFAULTS: Mapping[str, str | int] = {
    "application_name": "superlink-trio",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    "target_session_attrs": "read-write",
}

# The same for the server: what we hold is free again soon after this machine has vanished. And
# nobody waits for ever for a process that has stopped in the middle of a transaction.
_SESSION = """
    SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
    SET idle_in_transaction_session_timeout = '30s'; SET lock_timeout = '5s';
    SET client_min_messages = 'error'
"""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


def _read(url: str) -> Mapping[str, Any]:
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        given = {"host": "@"}
    # An @ is where libpq has taken a part of a password for a host.
    if any("@" in str(given.get(name)) for name in ("host", "dbname")):
        # Nothing of it is named, and the cause neither, which quotes it.
        raise CannotOpen(
            "The database's URL cannot be read: write postgresql://USER:PASSWORD@HOST:PORT/NAME, "
            "with %40 for an @ in the password, %2F for a /, and %25 for a %"
        )
    return given


class _Text(StrDumper):
    """Writes a text as PostgreSQL can store it: it has no NUL."""

    def dump(self, obj: str) -> bytes:
        return bytes(super().dump(obj.replace("\0", NUL)) or b"")


class Server:
    """What `--database` names.

    After a connection that could not be made the next is tried after a pause, which grows up to
    five seconds; meanwhile the answer is the last one. Raises CannotOpen where the URL is none.
    """

    def __init__(self, url: str) -> None:
        given = _read(url)
        self._parameters = {**_DEFAULTS, **given}
        place = given.get("host") or given.get("hostaddr") or "local socket"
        port = f":{given['port']}" if "port" in given else ""
        self.name = f"{given.get('dbname') or given.get('user') or ''} ({place}{port})".strip()
        self._pause = _FIRST_PAUSE
        self._not_before = 0.0
        self._refusal = ""

    def connect(self) -> psycopg.Connection:
        """Open a connection. It may be used in any thread, but by one at a time.

        Raises StateUnavailable; its cause is psycopg's error, if the server was asked.
        """
        if time.monotonic() < self._not_before:
            raise StateUnavailable(self._refusal)
        try:
            with faults_in_words(self.name, StateUnavailable):
                connection = self._connect()
        except StateUnavailable as error:
            self._refusal = str(error)
            self._not_before = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            raise
        self._pause = _FIRST_PAUSE
        return connection

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.connect(**self._parameters, autocommit=True)
        try:
            connection.execute(_SESSION)
        except BaseException:
            connection.close()
            raise
        # Statements are prepared for the types of their values: let those not depend on the value.
        connection.adapters.register_dumper(int, Int8Dumper)
        connection.adapters.register_dumper(str, _Text)
        return connection
