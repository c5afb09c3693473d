from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from superlink_trio.simulation.beside import beside, told_if_slow

_LOG = logging.getLogger("superlink_trio.simulation.test")


async def test_tasks_beside_a_block_end_with_it(autojump_clock: MockClock) -> None:
    ended: list[str] = []

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("task")

    async with beside(task):
        await trio.sleep(1)
        assert ended == []
    assert ended == ["task"]


@pytest.mark.parametrize("error", [OSError("no"), ExceptionGroup("two", [OSError("no")])])
async def test_what_a_block_raises_comes_out_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        async with beside(trio.sleep_forever):
            raise error
    assert repr(caught.value) == repr(error)


async def test_several_errors_are_a_group() -> None:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("the task")

    with pytest.RaisesGroup(OSError, ValueError):
        async with beside(fail):
            await trio.lowlevel.checkpoint()
            raise ValueError("the block")


async def test_a_block_that_takes_long_is_told_ever_more_rarely(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with told_if_slow(_LOG, "Loading client:app"):
        await trio.sleep(70)
    seconds = [2, 4, 8, 16, 32, 62]
    assert caplog.messages == [
        *(f"Loading client:app, {number} s so far" for number in seconds),
        "Loading client:app took 70.0 s",
    ]


async def test_a_block_that_is_quick_is_no_news(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with told_if_slow(_LOG, "Loading client:app"):
        await trio.sleep(1.9)
    assert caplog.messages == []


async def test_a_block_that_fails_has_taken_no_time(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def fail() -> None:
        async with told_if_slow(_LOG, "Loading client:app"):
            await trio.sleep(3)
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await fail()
    assert caplog.messages == ["Loading client:app, 2 s so far"]
