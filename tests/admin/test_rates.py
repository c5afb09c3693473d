from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from superlink_trio.admin.rates import STEP, STEPS, Rates
from superlink_trio.rpc import Api, Caller, Holds, Refused, Status, observed

CALLER = Caller("127.0.0.1:4711")


def api(rates: Rates) -> Api:
    """Make an API: `Ping` takes as many ms as its request has bytes, and refuses an empty one."""

    async def ping(raw: bytes, caller: Caller) -> bytes:
        if not raw:
            raise Refused(Status.NOT_FOUND, "who?")
        await trio.sleep(len(raw) / 1000)
        return b""

    async def pull(raw: bytes, caller: Caller) -> bytes:
        await trio.sleep(5)
        return b""

    bare = Api(
        service="test.Fleet",
        unary={"Ping": ping, "PullTaskIns": pull},
        leased={},
        holds=Holds(),
    )
    return observed(bare, [rates])


async def test_rates_are_of_the_last_ten_seconds(autojump_clock: MockClock) -> None:
    rates = Rates()
    ping = api(rates).unary["Ping"]
    for _ in range(30):
        await ping(b"0", CALLER)
    with pytest.raises(Refused):
        await ping(b"", CALLER)
    await trio.sleep(STEP)
    view = rates.recent().view()
    assert (view["calls"], view["faults"]) == (3.1, 0.1)
    await trio.sleep(15)
    assert rates.recent().view()["calls"] == 0


async def test_latencies_are_right_to_a_fifth_and_leave_out_who_waits(
    autojump_clock: MockClock,
) -> None:
    rates = Rates()
    calls = api(rates).unary
    await calls["PullTaskIns"](b"", CALLER)
    for size in [10] * 97 + [200] * 3:
        await calls["Ping"](bytes(size), CALLER)
    await trio.sleep(STEP)
    view = rates.recent().view()
    assert 10 <= view["median"] <= 12
    assert 200 <= view["p99"] <= 240
    assert view["calls"] > 10


async def test_the_series_end_with_the_last_whole_step(autojump_clock: MockClock) -> None:
    rates = Rates()
    await api(rates).unary["Ping"](b"0", CALLER)
    assert rates.recent().view()["series"]["calls"] == [0] * STEPS, "the step has not ended"
    await trio.sleep(STEP)
    series = rates.recent().view()["series"]
    assert series["calls"] == [0] * (STEPS - 1) + [1 / STEP]
    assert series["median"][-2:] == [None, pytest.approx(1.0, rel=0.2)]
    await trio.sleep(STEP * STEPS)
    assert rates.recent().view()["series"]["calls"] == [0] * STEPS


async def test_what_has_begun_is_under_way(autojump_clock: MockClock) -> None:
    rates = Rates()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(api(rates).unary["PullTaskIns"], b"", CALLER)
        await trio.sleep(1)
        assert rates.recent().view()["under_way"] == 1
    assert rates.recent().view()["under_way"] == 0
