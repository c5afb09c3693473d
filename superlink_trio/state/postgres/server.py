"""A database on a server: how it is named, reached, and reached again."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
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

# Nobody waits for ever for a process that has stopped in the middle of a transaction.
_TIMEOUTS = "SET {0} lock_timeout = '5s'; SET {0} idle_in_transaction_session_timeout = '30s';"
_EACH_CONNECTION, _EACH_TRANSACTION = _TIMEOUTS.format(""), _TIMEOUTS.format("LOCAL")

# The same for the server: what we hold is free again soon after this machine has vanished.
_KEEPALIVE = """
    SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = '25s';
"""

# Our own parameter, beside libpq's.
_DIRECT = re.compile(r"(?<=[?&])direct=([^&]*)&?")
_HOST_AND_PORT = re.compile(r"(?P<host>/[^:]*|\[[^]]+\]|[^][/:@]+)(:(?P<port>\d+))?")
_SECRETS = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key"})
_PLACE = frozenset({"host", "hostaddr", "port"})

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


def _split(url: str) -> tuple[str, Mapping[str, Any]]:
    """Give libpq's part of the URL, and where PostgreSQL itself is, if that is named."""
    direct = _DIRECT.search(url)
    if direct is None:
        return url, {}
    places = [_HOST_AND_PORT.fullmatch(each) for each in unquote(direct[1]).split(",")]
    if not all(places):
        # What stands there is not named: it may be a password.
        raise CannotOpen(
            "The database's URL has a direct= that cannot be read: write direct=HOST:PORT, where "
            "PostgreSQL itself is reached; user, password and name are those of the URL"
        )
    found = [place.groupdict(default="") for place in places if place]
    ports = ",".join(each["port"] for each in found)
    place = {"host": ",".join(each["host"].strip("[]") for each in found)}
    if ports.strip(","):
        place["port"] = ports
    return (url[: direct.start()] + url[direct.end() :]).rstrip("?&"), place


class _Text(StrDumper):
    """Writes a text as PostgreSQL can store it: it has no NUL."""

    def dump(self, obj: str) -> bytes:
        return bytes(super().dump(obj.replace("\0", NUL)) or b"")


class Server:
    """What `--database` names.

    With `direct=HOST:PORT` in the URL the rest of it leads to a pool that lends connections for one
    transaction each (PgBouncer's transaction mode). `direct`: go to PostgreSQL itself all the same.
    After a connection that could not be made the next is tried after a pause, which grows up to
    five seconds; meanwhile the answer is the last one. Raises CannotOpen where the URL is none.
    """

    def __init__(self, url: str, *, direct: bool = False) -> None:
        url, itself = _split(url)
        given = dict(_read(url))
        self._pooled = bool(itself) and not direct
        if itself and direct:
            given = {**_without_place(given), **itself}
        self._parameters = {**_DEFAULTS, **given}
        self._given = given
        place = given.get("host") or given.get("hostaddr") or "local socket"
        port = f":{given['port']}" if "port" in given else ""
        self.name = f"{given.get('dbname') or given.get('user') or ''} ({place}{port})".strip()
        self._pause = _FIRST_PAUSE
        self._not_before = 0.0
        self._refusal = StateUnavailable()

    @property
    def timeouts(self) -> str:
        """What transactions begin with. On a pool's connections nothing lasts: they are shared."""
        return _EACH_TRANSACTION if self._pooled else ""

    @property
    def conninfo(self) -> str:
        """What was given, as libpq's other programs take it, but nothing that is secret."""
        public = {name: value for name, value in self._given.items() if name not in _SECRETS}
        return make_conninfo(**public)

    def connect(self) -> psycopg.Connection:
        """Open a connection. It may be used in any thread, but by one at a time.

        Raises StateUnavailable; its cause is psycopg's error.
        """
        if time.monotonic() < self._not_before:
            raise StateUnavailable(str(self._refusal)) from self._refusal.__cause__
        try:
            with faults_in_words(self.name, StateUnavailable):
                connection = self._connect()
        except StateUnavailable as error:
            self._refusal = error
            self._not_before = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            raise
        self._pause = _FIRST_PAUSE
        return connection

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.connect(**self._parameters, autocommit=True)
        if self._pooled:
            # The next transaction is another connection's, which has prepared nothing.
            connection.prepare_threshold = None
        else:
            try:
                connection.execute((_KEEPALIVE + _EACH_CONNECTION).encode())
            except BaseException:
                connection.close()
                raise
        # Statements are prepared for the types of their values: let those not depend on the value.
        connection.adapters.register_dumper(int, Int8Dumper)
        connection.adapters.register_dumper(str, _Text)
        return connection


def _without_place(given: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in given.items() if name not in _PLACE}


def begin_reading(connection: psycopg.Connection, server: Server) -> None:
    """Begin a transaction: what is read until COMMIT is one state of the database."""
    begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {server.timeouts}"
    connection.execute(begin.encode())
