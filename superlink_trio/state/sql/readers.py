"""Connections that read beside the commits, in threads of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import trio

from superlink_trio.state.durable.engine import patiently
from superlink_trio.state.interface import StateUnavailable

Result = TypeVar("Result")

# What reads for long reads large payloads, and more of those at once only cost memory.
_READING_THREADS = 4


class Connection(Protocol):
    """A connection to a database."""

    def close(self) -> None:
        """End it."""


C = TypeVar("C", bound=Connection)


class Readers(Generic[C]):
    """Connections that are used by one thread at a time, and again by the next.

    `connect` opens one, in a worker thread. `patience`: seconds for which another program's lock
    is waited for.
    """

    def __init__(self, connect: Callable[[], C], patience: float) -> None:
        self._connect = connect
        self._patience = patience
        self._open = False
        # Those that are not in use.
        self._idle: list[C] = []
        self._limiter = trio.CapacityLimiter(_READING_THREADS)

    @property
    def reading(self) -> bool:
        """Whether a worker thread is at work."""
        return self._limiter.borrowed_tokens > 0

    def open(self) -> None:
        """Let there be connections, until `close`."""
        self._open = True

    def close(self) -> None:
        """Close those that are not in use; the others follow."""
        self._open = False
        self.close_idle()

    def close_idle(self) -> None:
        """Close those that are not in use."""
        while self._idle:
            self._idle.pop().close()

    async def read(self, ask: Callable[[C], Result]) -> Result:
        """Call `ask` with a connection in a thread. Raises StateUnavailable, and what it raises.

        A connection in which something failed is not used again.
        """
        return await patiently(self._patience, lambda: self._read(ask), limiter=self._limiter)

    def _read(self, ask: Callable[[C], Result]) -> Result:
        if not self._open:
            raise StateUnavailable("The database is not open.")
        connection = self._idle.pop() if self._idle else self._connect()
        try:
            result = ask(connection)
        except BaseException:
            connection.close()
            raise
        if self._open:
            self._idle.append(connection)
        else:
            connection.close()
        return result
