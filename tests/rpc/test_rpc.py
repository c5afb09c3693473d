from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.rpc import (
    Api,
    Caller,
    CallLimit,
    ClientGone,
    Duplex,
    Holds,
    Refused,
    Status,
    limit_in_words,
    with_refusals,
)
from superlink_trio.state import Limit, LimitReached


@attrs.define
class Held:
    """Calls that are held, each under its number, and which of them were let go, in order."""

    holds: Holds = attrs.field(factory=Holds)
    gone: list[int] = attrs.field(factory=list)

    async def hold(self, number: int) -> None:
        with self.holds.open(1000):
            await trio.sleep_forever()
        self.gone.append(number)


async def start(nursery: trio.Nursery, held: Held, *numbers: int) -> None:
    for number in numbers:
        nursery.start_soon(held.hold, number)
        await wait_all_tasks_blocked()


async def test_the_call_that_was_held_for_longest_makes_room(nursery: trio.Nursery) -> None:
    held = Held()
    await start(nursery, held, 1, 2, 3)
    limit = CallLimit(lambda: 3, [Holds(), held.holds], patience=20)
    for _ in range(3):
        limit.begin("PullTaskIns")
    assert held.gone == []
    for expected in ([1], [1, 2]):
        limit.begin("PullTaskIns")
        await wait_all_tasks_blocked()
        assert held.gone == expected
        limit.end()


async def test_a_call_too_many_is_refused_where_none_is_held(nursery: trio.Nursery) -> None:
    held = Held()
    await start(nursery, held, 1)
    limit = CallLimit(lambda: 2, [held.holds], patience=20)
    for _ in range(3):
        limit.begin("PushTaskRes")
    with pytest.raises(Refused, match="2 calls are under way, all that --max-calls") as caught:
        limit.begin("PushTaskRes")
    assert caught.value.status is Status.RESOURCE_EXHAUSTED
    assert limit.under_way == 3
    limit.end()
    limit.end()
    limit.begin("PushTaskRes")


async def test_it_is_idle_when_nobody_has_called_for_a_while(autojump_clock: MockClock) -> None:
    limit = CallLimit(lambda: 2, [], patience=20)
    assert limit.is_idle(1)
    limit.begin("PullObject")
    await trio.sleep(2)
    assert not limit.is_idle(1)
    limit.begin("PullObject")
    limit.end()
    limit.end()
    assert not limit.is_idle(1)
    await trio.sleep(1)
    assert limit.is_idle(1)


async def test_calls_that_come_while_the_server_stops_are_refused_and_counted() -> None:
    limit = CallLimit(lambda: 2, [], patience=20)
    limit.begin("PullObject")
    limit.close()
    for _ in range(2):
        with pytest.raises(Refused, match="stopping") as caught:
            limit.begin("PullObject")
        assert caught.value.status is Status.UNAVAILABLE
    assert (limit.under_way, limit.turned_away) == (1, 2)


async def test_a_request_that_takes_too_long_makes_room_before_a_held_call(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    held, ended = Held(), list[str]()
    await start(nursery, held, 1)
    limit = CallLimit(lambda: 3, [held.holds], patience=20)
    arrivals = {name: partial(ended.append, name) for name in ("first", "second", "third")}
    for arrival in arrivals.values():
        limit.begin("PushTaskRes")
        limit.arriving(arrival)
        mock_clock.jump(1)
    assert limit.arrived(arrivals["second"])
    mock_clock.jump(17.5)
    limit.begin("PullTaskIns")
    assert ended == ["first"]
    assert not limit.arrived(arrivals["first"])
    limit.end()
    limit.begin("PullTaskIns")
    await wait_all_tasks_blocked()
    assert (ended, held.gone) == (["first"], [1]), "the third had some time left"
    limit.end()
    with pytest.raises(Refused):
        limit.begin("PullTaskIns")
    mock_clock.jump(2)
    limit.begin("PullTaskIns")
    assert ended == ["first", "third"]


async def test_pings_are_refused_last_and_let_no_held_call_go(nursery: trio.Nursery) -> None:
    held = Held()
    await start(nursery, held, 1)
    limit = CallLimit(lambda: 2, [held.holds], patience=20)
    for call in ("PushTaskRes", "PushTaskRes", "Ping", "Ping"):
        limit.begin(call)
    with pytest.raises(Refused):
        limit.begin("Ping")
    await wait_all_tasks_blocked()
    assert held.gone == []


async def test_what_may_be_a_ping_is_refused_last_too(nursery: trio.Nursery) -> None:
    held = Held()
    await start(nursery, held, 1)
    limit = CallLimit(lambda: 2, [held.holds], patience=20)
    for _ in range(3):
        limit.begin("SendReceive")
    await wait_all_tasks_blocked()
    assert held.gone == [1]
    with pytest.raises(Refused):
        limit.begin("PushTaskRes")
    limit.begin("SendReceive")
    with pytest.raises(Refused):
        limit.begin("SendReceive")


async def test_releasing_lets_all_go_the_oldest_first(nursery: trio.Nursery) -> None:
    held = Held()
    await start(nursery, held, 1, 2, 3)
    assert len(held.holds) == 3
    held.holds.release()
    await wait_all_tasks_blocked()
    assert sorted(held.gone) == [1, 2, 3]
    assert not held.holds.release_oldest()
    with held.holds.open(1000):
        await trio.sleep_forever()


FULL = "3 nodes are registered, all that --max-nodes allows: try again later, or raise it"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LimitReached(Limit.NODES, value=3, more=1, most=3), FULL),
        (
            LimitReached(Limit.TASKS_PER_NODE, value=2, more=2, most=3, node_id=7),
            "2 tasks for node 7 have no answer yet, and 2 more would be over the 3 that "
            "--max-tasks-per-node allows: collect results first, push to more nodes, or raise it",
        ),
        (
            LimitReached(Limit.TASKS_PER_NODE, value=2, more=2, most=3, node_id=0),
            "2 tasks for anonymous nodes have no answer yet, and 2 more would be over the 3 that "
            "--max-tasks-per-node allows: collect results first, push to more nodes, or raise it",
        ),
        (
            LimitReached(Limit.ASKED_SIZE, value=5, more=6, most=10),
            "5 bytes are stored, and 6 more would be over 10, the half of --max-stored-size that "
            "is for tasks: collect results first, push smaller or equal payloads, or raise it",
        ),
        (
            LimitReached(Limit.STORED_SIZE, value=5, more=6, most=10),
            "5 bytes are stored, and 6 more would be over the 10 of --max-stored-size: "
            "wait until results are collected, or raise it",
        ),
    ],
)
def test_a_limit_in_words(error: LimitReached, words: str) -> None:
    assert limit_in_words(error) == words


def limited() -> Api:
    async def call(request: bytes, caller: Caller) -> bytes:
        raise LimitReached(Limit.NODES, value=3, more=1, most=3)

    @asynccontextmanager
    async def lease(request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        raise LimitReached(Limit.NODES, value=3, more=1, most=3)
        yield b""

    async def stream(stream: Duplex, caller: Caller) -> None:
        raise LimitReached(Limit.NODES, value=3, more=1, most=3)

    return with_refusals(
        Api(
            service="test.Service",
            unary={"Call": call},
            leased={"Lease": lease},
            streaming={"Stream": stream},
            holds=Holds(),
        )
    )


class Mute:
    """A client of a streaming call that says nothing."""

    async def receive(self) -> bytes:
        raise ClientGone

    async def send(self, message: bytes) -> None:
        raise ClientGone


async def test_a_limit_is_refused_with_its_words() -> None:
    api = limited()
    with pytest.raises(Refused) as unary:
        await api.unary["Call"](b"", Caller())
    with pytest.raises(Refused) as leased:
        async with api.leased["Lease"](b"", Caller()):
            pass
    with pytest.raises(Refused) as streaming:
        await api.streaming["Stream"](Mute(), Caller())
    for caught in (unary, leased, streaming):
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert caught.value.message == f"{FULL}."


async def test_a_flood_of_refusals_is_a_few_log_lines(
    caplog: pytest.LogCaptureFixture, mock_clock: MockClock
) -> None:
    api = limited()
    for seconds in (1, 1, 1, 10):
        with pytest.raises(Refused):
            await api.unary["Call"](b"", Caller())
        mock_clock.jump(seconds)
    with pytest.raises(Refused):
        await api.unary["Call"](b"", Caller())
    lines = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert lines == [
        f"Refused: {FULL}",
        f"Refused: {FULL} (and 3 more lines like this one were left out)",
    ]
