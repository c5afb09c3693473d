from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from superlink_trio.admin import CallTally, Counts, History, Overview, OwnSources, Rates
from superlink_trio.admin.feed import Feed, TooManyViewers
from superlink_trio.state import Census, StateUnavailable
from superlink_trio.state.memory import MemoryState
from superlink_trio.supervision import Event, EventKind


def overview(state: MemoryState | None = None) -> Overview:
    state = state or MemoryState()
    sources = OwnSources(calls=CallTally(), rates=Rates(), state=state, counts=Counts(state))
    return Overview(history=History(), addresses=dict, sources=sources)


class Viewer:
    """Somebody who looks at a stream."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.times: list[float] = []

    async def send(self, raw: bytes) -> None:
        name, data, *_ = raw.decode().split("\n")
        text = data.removeprefix("data: ")
        self.seen.append((name.removeprefix("event: "), json.loads(text) if text else None))
        self.times.append(trio.current_time())

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.seen]


async def test_a_viewer_sees_changes_at_most_once_a_second(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    watched, viewer = overview(), Viewer()
    nursery.start_soon(Feed(watched, trio.Event()).stream, viewer.send)
    await trio.sleep(0.5)
    for kind in (EventKind.STARTING, EventKind.READY):
        watched.history.note(Event(kind=kind, path="superlink/state", time=0))
    await trio.sleep(3)
    assert viewer.names == ["overview", "overview"]
    assert [part["state"] for part in viewer.seen[-1][1]["parts"]] == ["ready"]
    assert viewer.times[1] - viewer.times[0] == pytest.approx(1)
    nursery.cancel_scope.cancel()


async def test_a_viewer_hears_that_the_connection_stands(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    viewer = Viewer()
    nursery.start_soon(Feed(overview(), trio.Event()).stream, viewer.send)
    await trio.sleep(10.5)
    assert viewer.names == ["overview", "heartbeat", "heartbeat"]
    nursery.cancel_scope.cancel()


async def test_the_last_that_a_viewer_hears_is_that_it_stops(autojump_clock: MockClock) -> None:
    stopping, viewer = trio.Event(), Viewer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Feed(overview(), stopping).stream, viewer.send)
        await trio.sleep(2)
        stopping.set()
    assert viewer.names == ["overview", "stopping"]


async def test_viewers_are_bounded_and_leave_their_place(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    feed = Feed(overview(), trio.Event())
    async with trio.open_nursery() as viewers:
        for _ in range(24):
            viewers.start_soon(feed.stream, Viewer().send)
        await trio.sleep(1)
        with pytest.raises(TooManyViewers):
            await feed.stream(Viewer().send)
        viewers.cancel_scope.cancel()
    viewer = Viewer()
    nursery.start_soon(feed.stream, viewer.send)
    await trio.sleep(1)
    assert viewer.names == ["overview"]
    nursery.cancel_scope.cancel()


async def test_many_viewers_have_the_state_counted_once_a_second(
    autojump_clock: MockClock,
) -> None:
    class Counting(MemoryState):
        asked = 0

        async def census(self) -> Census:
            self.asked += 1
            return await super().census()

    state = Counting()
    feed = Feed(overview(state), trio.Event())
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(feed.stream, Viewer().send)
        await trio.sleep(4.5)
        nursery.cancel_scope.cancel()
    assert state.asked <= 5


async def test_a_state_that_cannot_be_read_is_a_fault_and_no_end(
    autojump_clock: MockClock,
) -> None:
    class Broken(MemoryState):
        async def census(self) -> Census:
            raise StateUnavailable("the disk is gone")

    document = await Feed(overview(Broken()), trio.Event()).document()
    assert document["faults"] == ["the state cannot be read"]
    assert document["tasks"] is None
