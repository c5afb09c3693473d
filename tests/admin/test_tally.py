from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from superlink_trio.admin.tally import CALL_BOUNDS, CallTally, Durations, measure_lag
from superlink_trio.rpc import Api, Caller, Holds, Refused, Status, observed

CALLER = Caller("127.0.0.1:4711")


def test_a_duration_counts_up_to_its_bound() -> None:
    durations = Durations((0.1, 1.0))
    for seconds in (0.1, 0.5, 1.0, 7.0):
        durations.note(seconds)
    assert durations.counts == [1, 2, 1]
    assert durations.sum == pytest.approx(8.6)


def test_a_copy_stays_as_it_is() -> None:
    durations = Durations((1.0,))
    copied = durations.copy()
    durations.note(0.5)
    assert (copied.counts, copied.sum) == ([0, 0], 0.0)


async def test_calls_are_counted_with_their_bytes_and_ends(autojump_clock: MockClock) -> None:
    holds, tally = Holds(), CallTally()

    @asynccontextmanager
    async def pull(raw: bytes, caller: Caller) -> AsyncIterator[bytes]:
        with holds.open(20):
            await trio.sleep_forever()
        yield b"task"

    async def ping(raw: bytes, caller: Caller) -> bytes:
        raise Refused(Status.RESOURCE_EXHAUSTED, "full", reason="max_nodes")

    bare = Api(service="test.Fleet", unary={"Ping": ping}, leased={"Pull": pull}, holds=holds)
    api = observed(bare, [tally])

    async def pull_once() -> None:
        async with api.leased["Pull"](b"me", CALLER):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pull_once)
        nursery.start_soon(pull_once)
        await trio.sleep(10)
        [(name, method)] = tally.methods()
        assert (name, method.in_progress, method.ended) == (("test.Fleet", "Pull"), 2, {})
        assert dict(tally.held()) == {"test.Fleet": 2}
    with pytest.raises(Refused):
        await api.unary["Ping"](b"", CALLER)

    methods = dict(tally.methods())
    pulls, pings = methods["test.Fleet", "Pull"], methods["test.Fleet", "Ping"]
    assert (pulls.in_progress, pulls.received, pulls.sent) == (0, 4, 8)
    assert pulls.ended["OK"].sum == 40
    assert pulls.ended["OK"].counts[CALL_BOUNDS.index(20.0)] == 2
    assert dict(tally.held()) == {"test.Fleet": 0}
    assert (list(pings.ended), pings.refused) == (["RESOURCE_EXHAUSTED"], {"max_nodes": 1})
    assert not pulls.refused


async def test_a_stalled_loop_is_late(mock_clock: MockClock) -> None:
    late: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(measure_lag, late.append)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(0.25)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(2.25)  # as if somebody had not let go for two seconds
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert late == [0, 2]
