"""How many calls a server bears at a time, and who gives way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import trio

from superlink_trio.rpc.holds import Holds
from superlink_trio.rpc.interface import Refused, Status

_REFUSED_LAST = frozenset({"Ping", "Check"})


class CallLimit:
    """How many calls of a server may be under way at the same time, held ones included.

    Where it is reached, a new call gets the place of another one: of the request that has been
    arriving for longest, if that is longer than `patience` seconds; or else of the call that has
    been held for longest, which is answered: its caller will ask again. Only where there is
    neither, a new call is refused. So a client that holds as many calls as it can, or never ends
    its requests, does not keep others out.

    Pings are refused last of all, since there are clients that repeat a ping that was refused
    without a pause; and health checks, since who refuses them while it is busy may be restarted for
    it. What a GrpcAdapter's call is cannot be told before it is read: it may be a ping.
    """

    def __init__(
        self, limit: Callable[[], int], holds: Iterable[Holds], *, patience: float
    ) -> None:
        """`limit` is asked for at each call: it may change."""
        self._limit = limit
        self._holds = tuple(holds)
        self._patience = patience
        # How to give a request up, and since when it is on its way; the oldest first.
        self._arrivals: dict[Callable[[], object], float] = {}
        self._closed = False
        # When the last call began, by Trio's clock.
        self._last = -math.inf
        self.under_way = 0
        self.turned_away = 0
        """Calls that came after `close`."""

    def begin(self, call: str) -> None:
        """Count a call, by its name, until `end`. Raises Refused."""
        if self._closed:
            self.turned_away += 1
            raise Refused(Status.UNAVAILABLE, "The server is stopping.", reason="stopping")
        if self.under_way >= self._limit() and not self._has_room_for(call):
            raise self.refusal()
        self.under_way += 1
        self._last = trio.current_time()

    def end(self) -> None:
        """Count a call no more."""
        self.under_way -= 1

    def is_idle(self, seconds: float) -> bool:
        """Say whether no call is under way, and none has begun for so long."""
        return self.under_way == 0 and trio.current_time() - self._last >= seconds

    def close(self) -> None:
        """Refuse every call from now on: the server stops."""
        self._closed = True

    def arriving(self, give_up: Callable[[], object]) -> None:
        """Note that a counted call's request is on its way, until `arrived`."""
        self._arrivals[give_up] = trio.current_time()

    def arrived(self, give_up: Callable[[], object]) -> bool:
        """Note that a request is on its way no more; say whether it was not given up."""
        return self._arrivals.pop(give_up, None) is not None

    def refusal(self) -> Refused:
        """Give the refusal of a call that has no place, or not any more."""
        return Refused(
            Status.RESOURCE_EXHAUSTED,
            f"{self._limit()} calls are under way, all that --max-calls allows: try again later.",
            reason="max_calls",
        )

    def _has_room_for(self, call: str) -> bool:
        # Whose place is taken needs a moment to end.
        if self.under_way >= 2 * self._limit():
            return False
        return (
            call in _REFUSED_LAST
            or self._end_slowest()
            or any(holds.release_oldest() for holds in self._holds)
            or call == "SendReceive"
        )

    def _end_slowest(self) -> bool:
        for give_up, since in self._arrivals.items():
            if trio.current_time() < since + self._patience:
                return False
            del self._arrivals[give_up]
            give_up()
            return True
        return False
