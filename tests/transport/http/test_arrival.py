"""How long there is patience with a request, and how its end is estimated."""

from __future__ import annotations

import math

import trio
from trio.testing import MockClock

from superlink_trio.transport.http.arrival import Arrival


async def test_patience_is_filled_up_again_by_bytes_and_not_beyond(
    autojump_clock: MockClock,
) -> None:
    arrival = Arrival(20, 1000)
    start = trio.current_time()
    assert arrival.deadline == start + 20
    arrival.note(5000)
    assert arrival.deadline == start + 20, "a fast start is no reason to wait for hours"
    await trio.sleep(10)
    arrival.note(5000)
    assert arrival.deadline == start + 25
    await trio.sleep(10)
    arrival.note(500_000)
    assert arrival.deadline == trio.current_time() + 20


async def test_the_end_is_where_the_last_seconds_lead(autojump_clock: MockClock) -> None:
    arrival = Arrival(20, 1000)
    arrival.size = 1_000_000
    assert arrival.seconds_left == math.inf
    arrival.note(100_000)
    assert arrival.seconds_left == 9
    for _ in range(20):
        await trio.sleep(1)
        arrival.note(1000)
    assert arrival.seconds_left > 500
    arrival.note(879_000)
    assert arrival.seconds_left < 1


async def test_an_end_that_nobody_announced_is_far(autojump_clock: MockClock) -> None:
    arrival = Arrival(20, 1000)
    arrival.note(100_000)
    assert arrival.seconds_left == math.inf
