"""PostgreSQL's errors in words: what happened to which database, and what to do about it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial

import psycopg

from superlink_trio.state.interface import CannotOpen, StateUnavailable
from superlink_trio.state.sql.faults import translated

_UNREACHABLE = "cannot be reached: start it, or check the network and its address"
_REFUSED = "does not let us in: check the user, the password, and the database's name"
_STANDBY = "cannot be written, it is a standby: name the primary server"
_STARTING = "is being started or stopped: wait, or start it"
_CROWDED = "has no connection left: raise its max_connections, or use it by fewer"

# By SQLSTATE, or by its class (two characters).
# Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
_WORDS = {
    "08": _UNREACHABLE,
    "23505": "was changed by another process at the same moment",
    "25006": _STANDBY,
    "28": _REFUSED,
    "3D": _REFUSED,
    "3F000": "has no such schema: create it, or leave search_path out",
    "40001": "was changed by another process at the same moment",
    "40P01": "was changed by another process at the same moment",
    "42P07": "has tables of another program: name another schema, ?options=-csearch_path%3DSCHEMA",
    "42501": "may not be used: grant the user what it needs to make and use tables",
    "53100": "cannot grow, its disk is full: make room",
    "53200": "is out of memory: give it more",
    "53300": _CROWDED,
    "53": "lacks resources: its log says which",
    "55P03": "is locked by another program: find and end it, or wait until it is done",
    "57P": _STARTING,
    "57014": "has cancelled a statement: check its statement_timeout",
    "25P03": "has ended a transaction that was too slow: check the machine's load",
    "58": "cannot be read or written: check its disk and its log",
    "XX": "is damaged: check its log, and restore a backup",
}
# Somebody else was faster, or has what we need: the same may succeed at once. What was inserted by
# two at the same moment is found by who comes later, and looks again.
_TRIED_AGAIN = frozenset({"23505", "40001", "40P01", "55P03"})


# libpq has no SQLSTATE for a server that answers but makes no connection: only its words.
_ANSWERS = {
    "session is read-only": _STANDBY,
    "hot standby": _STANDBY,
    "starting up": _STARTING,
    "shutting down": _STARTING,
    "recovery": _STARTING,
    "too many": _CROWDED,
    "slots": _CROWDED,
    "FATAL:": _REFUSED,
}


def in_words(error: psycopg.Error, name: str) -> str | None:
    """Say what an error means to an operator; None when it is a mistake of this program."""
    words = _words(error)
    return None if words is None else f"The database {name} {words} ({_first_line(error)})"


def _words(error: psycopg.Error) -> str | None:
    state = error.sqlstate
    if state is not None:
        return _WORDS.get(state) or _WORDS.get(state[:3]) or _WORDS.get(state[:2])
    if not isinstance(error, psycopg.OperationalError):
        return None
    found = (words for answer, words in _ANSWERS.items() if answer in str(error))
    return next(found, _UNREACHABLE)


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().partition("\n")[0]


def faults_in_words(
    name: str, kind: type[CannotOpen | StateUnavailable]
) -> AbstractContextManager[None]:
    """Raise what `sql.faults.translated` says for an error of this database."""
    return translated(psycopg.Error, partial(in_words, name=name), is_lock, kind)


def is_lock(error: psycopg.Error) -> bool:
    """Whether an error only says that another process was faster, or has what we need."""
    return error.sqlstate in _TRIED_AGAIN


def may_pass(error: psycopg.Error) -> bool:
    """Whether a connection that was refused may be made a little later, with nothing changed."""
    return _words(error) in (_UNREACHABLE, _STANDBY, _STARTING, _CROWDED)
