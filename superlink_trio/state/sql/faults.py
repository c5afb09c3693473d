"""A database's errors, as those of the state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from superlink_trio.state.durable.engine import Locked
from superlink_trio.state.interface import CannotOpen, StateUnavailable

E = TypeVar("E", bound=Exception)


@contextmanager
def translated(
    errors: type[E],
    in_words: Callable[[E], str | None],
    is_lock: Callable[[E], bool],
    kind: type[CannotOpen | StateUnavailable],
) -> Iterator[None]:
    """Raise an error in words for one of the database's: Locked, or one of this kind.

    One that has no words is a mistake of this program, and raised as it is.
    """
    try:
        yield
    except errors as error:
        words = in_words(error)
        if words is None:
            raise
        raise (Locked if is_lock(error) else kind)(words) from error
