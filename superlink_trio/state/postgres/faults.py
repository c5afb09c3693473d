"""PostgreSQL's errors in words: what happened to which database, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from superlink_trio.state.durable.engine import Locked
from superlink_trio.state.interface import CannotOpen, StateUnavailable

_UNREACHABLE = "cannot be reached: start it, or check the network and its address"
_UNKNOWN_NAME = "does not exist: create it, or name another one"
_NOT_ALLOWED = "does not let us in: check the user and the password"

# By SQLSTATE, or by its class (two characters).
# Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
_WORDS = {
    "08": _UNREACHABLE,
    "23505": "was changed by another process at the same moment",
    "25006": "cannot be written, it is a standby: name the primary server",
    "28": _NOT_ALLOWED,
    "3D000": _UNKNOWN_NAME,
    "3F000": "has no such schema: create it, or leave search_path out",
    "40001": "was changed by another process at the same moment",
    "40P01": "was changed by another process at the same moment",
    "42501": "may not be used: grant the user what it needs to make and use tables",
    "53100": "cannot grow, its disk is full: make room",
    "53200": "is out of memory: give it more",
    "53300": "has no connection left: raise its max_connections, or use it by fewer",
    "53": "lacks resources: its log says which",
    "55P03": "is locked by another program: find and end it, or wait until it is done",
    "57P": "is being started or stopped: wait, or start it",
    "57014": "has cancelled a statement: check its statement_timeout",
    "25P03": "has ended a transaction that was too slow: check the machine's load",
    "58": "cannot be read or written: check its disk and its log",
    "XX": "is damaged: check its log, and restore a backup",
}
# Somebody else was faster, or has what we need: the same may succeed at once. What was inserted by
# two at the same moment is found by who comes later, and looks again.
_TRIED_AGAIN = frozenset({"23505", "40001", "40P01", "55P03"})


def in_words(error: psycopg.Error, name: str) -> str | None:
    """Say what an error means to an operator; None when it is a mistake of this program."""
    state = error.sqlstate
    if state is None:
        # What libpq itself notices has none.
        words = _UNREACHABLE if isinstance(error, psycopg.OperationalError) else None
    else:
        words = _WORDS.get(state) or _WORDS.get(state[:3]) or _WORDS.get(state[:2])
    return None if words is None else f"The database {name} {words} ({_first_line(error)})"


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().partition("\n")[0]


@contextmanager
def faults_in_words(name: str, kind: type[CannotOpen | StateUnavailable]) -> Iterator[None]:
    """Raise an error in words for one of PostgreSQL's: Locked, or one of this kind.

    A mistake of this program is raised as it is.
    """
    try:
        yield
    except psycopg.Error as error:
        words = in_words(error, name)
        if words is None:
            raise
        raise (Locked if is_lock(error) else kind)(words) from error


def is_lock(error: psycopg.Error) -> bool:
    """Whether an error only says that another process was faster, or has what we need."""
    return error.sqlstate in _TRIED_AGAIN


def may_pass(error: psycopg.Error) -> bool:
    """Whether a connection that was refused may be made a little later, with nothing changed."""
    state = error.sqlstate
    return state is None or state.startswith(("08", "53", "57P"))
