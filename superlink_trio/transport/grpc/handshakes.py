"""Connections over TLS that never came to a call: most could not get in.

grpc tells nobody of a handshake that failed. But it asks for a certificate whenever a connection
begins (see `credentials`), and says of each call which connection it came over. What is left of the
former when the latter are taken off is told, without an address: nobody knows whose they were.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import trio

from superlink_trio.config.address import Address

_log = logging.getLogger(__name__)

# Seconds. Clients connect in order to call.
_PATIENCE = 10.0

# Seconds between two lines. Health checks of load balancers connect on and on, and never call.
_PERIOD = 600.0

# Connections that have called are remembered for once or twice as long as one lasts that does not
# call any more, in seconds; and no more than once or twice as many.
_REMEMBERED, _MOST = 600.0, 32_768


class Handshakes:
    """Counts the connections of one port that begin, and those that call."""

    def __init__(self, hint: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Count for one port; `hint` says what may be done for those that never call."""
        self._hint = hint
        self._clock = clock  # grpc's threads know no other than the system's
        # When connections began that have not called yet. grpc's threads add to it.
        self._waiting: deque[float] = deque(maxlen=_MOST)
        self._called: set[str] = set()
        self._called_before: set[str] = set()
        self._remembering_since = 0.0
        self._token: trio.lowlevel.TrioToken | None = None
        self._news = trio.Event()

    def began(self) -> None:
        """Note that a connection has begun. To be called from any thread."""
        self._waiting.append(self._clock())
        if self._token is not None and not self._news.is_set():
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._news.set, idempotent=True)

    def called(self, peer: str) -> None:
        """Note that a call came over the connection of a peer."""
        age = self._clock() - self._remembering_since
        if age > _REMEMBERED or len(self._called) >= _MOST:
            self._called_before = set() if age > 2 * _REMEMBERED else self._called
            self._called = set()
            self._remembering_since += age
        if peer not in self._called:
            self._called.add(peer)
            if peer not in self._called_before and self._waiting:
                # The newest: a connection that is to call does so at once.
                self._waiting.pop()

    async def report(self, address: Address) -> None:
        """Tell of those that never call, until cancelled; `address` is where they came to."""
        self._token = trio.lowlevel.current_trio_token()
        while True:
            news = self._news = trio.Event()
            if not self._waiting:
                await news.wait()
            await trio.sleep(_PATIENCE)
            if number := self._overdue():
                what = "connection" if number == 1 else "connections"
                _log.info("%d %s to %s made no call: %s", number, what, address, self._hint)
                await trio.sleep(_PERIOD)

    def _overdue(self) -> int:
        """Take those off that have waited for too long; give how many they were."""
        number, latest = 0, self._clock() - _PATIENCE
        while self._waiting and self._waiting[0] <= latest:
            self._waiting.popleft()
            number += 1
        return number
