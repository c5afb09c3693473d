"""Calls that are held open until there is something to answer."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType

import attrs
import trio


@attrs.frozen
class _Hold(AbstractContextManager[trio.CancelScope]):
    # Thousands of them wait at a time: a generator would take several times the memory.

    scopes: dict[trio.CancelScope, None]
    scope: trio.CancelScope

    def __enter__(self) -> trio.CancelScope:
        self.scope.__enter__()
        self.scopes[self.scope] = None
        return self.scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.scopes.pop(self.scope, None)
        return self.scope.__exit__(kind, raised, traceback)


class Holds:
    """Every call that is held open until there is something to answer."""

    def __init__(self) -> None:
        # The oldest first.
        self._scopes: dict[trio.CancelScope, None] = {}
        self._released = False

    @property
    def released(self) -> bool:
        """Whether nothing is held any more, because the server is stopping."""
        return self._released

    def __len__(self) -> int:
        return len(self._scopes)

    def open(self, seconds: float) -> AbstractContextManager[trio.CancelScope]:
        """Wait inside the block for at most `seconds`; it is left quietly at the deadline.

        The block is given its scope, and may bring the deadline forward.
        Once `release` was called the block is left at its first checkpoint that would wait.
        """
        scope = trio.CancelScope(deadline=trio.current_time() + seconds)
        if self._released:
            scope.cancel()
        return _Hold(self._scopes, scope)

    def release(self) -> None:
        """Let every held call go at once, those that come later included."""
        self._released = True
        while self.release_oldest():
            pass

    def release_oldest(self) -> bool:
        """Let the call go that has been held for longest; say whether there was one."""
        if not self._scopes:
            return False
        scope = next(iter(self._scopes))
        del self._scopes[scope]
        scope.cancel()
        return True
