from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from superlink_trio.state import StateUnavailable
from superlink_trio.state.durable.engine import Committed
from superlink_trio.state.durable.heartbeats import Heartbeats
from superlink_trio.state.durable.writer import Writer
from superlink_trio.state.sqlite.committing import Committer
from superlink_trio.state.sqlite.opening import Database, open_database
from superlink_trio.state.sqlite.transaction import Transaction


class Disaster(BaseException):
    """What no step is allowed to raise."""


@pytest.fixture
def committer() -> Iterator[Committer]:
    database = Database(":memory:", 1.0, math.inf)
    opened = open_database(database, "", 0.0)
    yield Committer(database, opened)
    opened.connection.close()


def ignore(_: Committed) -> None:
    pass


async def test_a_step_that_fails_fails_alone(committer: Committer, nursery: trio.Nursery) -> None:
    writer = Writer(committer, Heartbeats(), ignore, 0.2)
    await nursery.start(writer.serve)

    def insert(tx: Transaction) -> None:
        tx.execute("INSERT INTO superlink_fab VALUES ('h', x'00')")

    def insert_and_fail(tx: Transaction) -> None:
        tx.execute("INSERT INTO superlink_fab VALUES ('i', x'00')")
        raise ZeroDivisionError

    async def fail() -> None:
        with pytest.raises(ZeroDivisionError):
            await writer.do(insert_and_fail)

    async with trio.open_nursery() as callers:
        callers.start_soon(fail)
        callers.start_soon(writer.do, insert)
        callers.start_soon(fail)
    hashes = await writer.do(lambda tx: tx.execute("SELECT hash FROM superlink_fab").fetchall())
    assert hashes == [("h",)]
    assert writer.commits == 2
    writer.close()


async def test_what_nobody_foresaw_ends_the_store_and_leaves_nobody_waiting(
    committer: Committer,
) -> None:
    writer = Writer(committer, Heartbeats(), ignore, 0.2)
    told: list[str] = []

    def fall(tx: Transaction) -> None:
        raise Disaster

    async def call() -> None:
        with pytest.raises(StateUnavailable) as caught:
            await writer.do(fall)
        told.append(str(caught.value))

    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with trio.open_nursery() as callers, trio.open_nursery() as serving:
            await serving.start(writer.serve)
            for _ in range(2):
                callers.start_soon(call)
    assert caught.group_contains(Disaster, depth=2) or caught.group_contains(Disaster)
    assert told == ["The database failed; the log says why."] * 2
    committer.close()


async def test_a_commit_that_takes_long_is_told_of_once(
    committer: Committer,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    writer = Writer(committer, Heartbeats(), ignore, 0.2)
    await nursery.start(writer.serve)
    nursery.start_soon(writer.watch, 1e-9)
    going_on = threading.Event()

    def stand_still(_: Transaction) -> None:
        assert going_on.wait(60)

    async with trio.open_nursery() as callers:
        callers.start_soon(writer.do, stand_still)
        await trio.sleep(100)
        assert writer.commit_age > 0
        going_on.set()
    await trio.sleep(100)
    slow, ended = caplog.messages
    assert slow.startswith("A commit has taken 0 s so far: the database waits for")
    assert ended.startswith("The commit that took long has ended, after 0 s")
    assert writer.commit_age == 0
    nursery.cancel_scope.cancel()
