"""A driver's call waits while the state is not available: Flower's drivers never call again.

What a state refuses in an outage has changed nothing, so that it may be asked again. Where the
answer of a database got lost a second time may be one too many: a run or a task that its driver
does not know of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import trio

from superlink_trio.rpc import Caller, Holds, Unary
from superlink_trio.state import StateUnavailable

LONGEST = 30.0
"""Seconds for which a call waits: a database restarts, or its standby is promoted, meanwhile."""

_AGAIN_AFTER = 0.5

Result = TypeVar("Result")


async def through_outages(holds: Holds, ask: Callable[[], Awaitable[Result]]) -> Result:
    """Ask the state, again and again in an outage.

    Raises StateUnavailable when that takes too long, and when `holds` are released: at a stop.
    """
    deadline = trio.current_time() + LONGEST
    while True:
        try:
            return await ask()
        except StateUnavailable:
            left = deadline - trio.current_time()
            if left <= 0 or holds.released:
                raise
        with holds.open(min(left, _AGAIN_AFTER)):
            await trio.sleep_forever()


def patient(call: Unary, holds: Holds) -> Unary:
    """Make a call begin anew in an outage: before it asks the state it does nothing that lasts.

    Raises like `through_outages`.
    """

    async def answer(request: bytes, caller: Caller) -> bytes:
        return await through_outages(holds, partial(call, request, caller))

    return answer
