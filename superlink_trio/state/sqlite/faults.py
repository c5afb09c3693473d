"""SQLite's errors in words: what happened to which file, and what to do about it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import AbstractContextManager
from functools import partial

import attrs

from superlink_trio.state.interface import CannotOpen, StateUnavailable
from superlink_trio.state.sql.faults import translated

ATTEMPT = 0.1
"""Seconds for which SQLite waits for another program's lock, in a thread that nobody can cancel.

Whoever has more patience tries again; see `durable.engine.patiently`.
"""

# Primary result codes. Source: https://sqlite.org/rescode.html
_WORDS = {
    sqlite3.SQLITE_PERM: "may not be used: check its permissions",
    sqlite3.SQLITE_BUSY: "is locked by another program: find and end it, or wait until it is done",
    sqlite3.SQLITE_LOCKED: "is locked by another program: find and end it",
    sqlite3.SQLITE_PROTOCOL: "is locked by other programs all the time: use it by fewer",
    sqlite3.SQLITE_READONLY: "cannot be written: check the permissions of the file and its folder",
    sqlite3.SQLITE_IOERR: "cannot be read or written: check the disk",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore a backup, or salvage it with sqlite3's .recover",
    sqlite3.SQLITE_FULL: "cannot grow, its disk is full: make room",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check that its folder exists and may be written to",
    sqlite3.SQLITE_NOTADB: "is no SQLite database: name another file",
}
_STATEMENT_ONLY = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_FULL}
)


def in_words(error: sqlite3.Error, path: str) -> str | None:
    """Say what an error means to an operator; None when it is a mistake of this program."""
    words = _WORDS.get(_primary(error))
    return None if words is None else f"The database {path} {words} ({error})"


def faults_in_words(
    path: str, kind: type[CannotOpen | StateUnavailable]
) -> AbstractContextManager[None]:
    """Raise what `sql.faults.translated` says for an error of this database."""
    return translated(sqlite3.Error, partial(in_words, path=path), is_lock, kind)


def is_lock(error: sqlite3.Error) -> bool:
    """Whether an error only says that another program has the file."""
    return _primary(error) == sqlite3.SQLITE_BUSY


def spoils_connection(error: sqlite3.Error) -> bool:
    """Whether a connection should be opened anew after this error."""
    return _primary(error) not in _STATEMENT_ONLY


def _primary(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


@attrs.frozen
class Identity:
    """Which file a path led to when it was opened.

    SQLite goes on writing to a file that was deleted: what it acknowledges then is lost.
    """

    path: str
    device: int
    number: int

    @classmethod
    def of(cls, path: str) -> Identity:
        """Look at the file that the path leads to now."""
        status = os.stat(path)
        return cls(path, status.st_dev, status.st_ino)

    def check(self) -> None:
        """Raise StateUnavailable when the path does not lead to that file any more."""
        try:
            now = Identity.of(self.path)
        except OSError as error:
            raise StateUnavailable(
                f"The database {self.path} has vanished: put it back ({error.strerror})"
            ) from error
        if now != self:
            raise StateUnavailable(
                f"The database {self.path} was replaced by another file: put the first one back, "
                "or start again to use the new one"
            )
