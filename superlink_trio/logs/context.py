"""What the lines of one call have in common: its id, and the run, node and task that it is about.

Whoever begins a call opens a context; whoever learns more about it notes that down. Each record
that is logged meanwhile, wherever, has these as fields in the JSON format.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TypeAlias

Fields: TypeAlias = dict[str, object]

_NONE: Fields = {}
_fields: ContextVar[Fields] = ContextVar("fields", default=_NONE)


def enter(fields: Fields) -> Token[Fields]:
    """Begin a context with these fields; give what `leave` wants. They may grow by `note`."""
    return _fields.set(fields)


def leave(token: Token[Fields]) -> None:
    """End the context that `enter` began."""
    _fields.reset(token)


def note(**fields: object) -> None:
    """Add fields to the context at hand, if there is one."""
    current = _fields.get()
    if current is not _NONE:
        current.update(fields)


def current() -> Fields:
    """Give a copy of the fields of the context at hand."""
    return dict(_fields.get())
