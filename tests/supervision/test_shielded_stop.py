"""Cancellation from outside, in every phase, with the shield and without it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from superlink_trio.supervision import (
    Backoff,
    Child,
    Control,
    Group,
    Restart,
    Strategy,
    shielded_stop,
    supervise,
)


@pytest.fixture
def tree(script: Any, act: Any) -> Group:
    """Starts until 4, crashes at 6, is back at 8, and needs 5 s to stop."""
    backoff = Backoff(initial=2, jitter=0)
    crashing = script(act(starts=2, serves=2, serve_fails=True, stops=2), act(stops=2))
    return Group(
        name="app",
        strategy=Strategy.REST_FOR_ONE,
        children=[
            Child(name="a", serve=script(act(starts=2, stops=3))),
            Child(name="b", serve=crashing, restart=Restart.ON_FAILURE, backoff=backoff),
        ],
    )


async def run_app(
    tree: Group, observer: Any, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with shielded_stop() as control:
        await supervise(tree, control=control, observer=observer, task_status=task_status)


STOPS = {
    1: ["1 stopping app", "1 stopping app/a", "1 cancelled app/a", "1 stopped app"],
    3: [
        "3 stopping app",
        "3 stopping app/b",
        "3 cancelled app/b",
        "3 stopping app/a",
        "6 stopped app/a",
        "6 stopped app",
    ],
    5: [
        "5 stopping app",
        "5 stopping app/b",
        "7 stopped app/b",
        "7 stopping app/a",
        "10 stopped app/a",
        "10 stopped app",
    ],
    7: [
        "7 stopping app",
        "7 stopped app/b",
        "7 stopping app/a",
        "10 stopped app/a",
        "10 stopped app",
    ],
    9: [
        "9 stopping app",
        "9 stopping app/b",
        "11 stopped app/b",
        "11 stopping app/a",
        "14 stopped app/a",
        "14 stopped app",
    ],
}


@pytest.mark.parametrize("time", STOPS)
async def test_a_cancellation_is_a_graceful_stop(
    autojump_clock: Any, time: int, tree: Group, script: Any, recorder: Any
) -> None:
    with trio.move_on_at(time) as scope:
        await run_app(tree, recorder)
        pytest.fail("the cancellation did not come out")
    assert scope.cancelled_caught
    assert recorder.since(time) == STOPS[time]
    assert (script.alive, recorder.illegal) == (0, [])


@pytest.mark.parametrize("time", STOPS)
async def test_as_a_child_of_a_nursery(
    autojump_clock: Any, time: int, tree: Group, script: Any, recorder: Any
) -> None:
    """`nursery.start` returns when all is ready; cancelled before and after, it stops in order."""
    ready = None
    with trio.move_on_at(time) as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(run_app, tree, recorder)
            ready = trio.current_time()
    assert scope.cancelled_caught
    assert ready == (None if time < 4 else 4)
    assert recorder.since(time) == STOPS[time]
    assert (script.alive, recorder.illegal) == (0, [])


async def test_a_cancellation_while_it_stops(
    autojump_clock: Any, tree: Group, script: Any, recorder: Any
) -> None:
    with trio.move_on_at(11):
        async with shielded_stop() as control, trio.open_nursery() as nursery:
            nursery.start_soon(_at_9, control)
            await supervise(tree, control=control, observer=recorder)
    assert recorder.since(9) == STOPS[9]


async def _at_9(control: Control) -> None:
    await trio.sleep_until(9)
    control.stop()


async def test_asked_to_stop_while_it_starts(
    autojump_clock: Any, tree: Group, recorder: Any
) -> None:
    control = Control()

    async def start(task_status: trio.TaskStatus[None]) -> None:
        await supervise(tree, control=control, observer=recorder, task_status=task_status)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_at_1, control)
        with pytest.raises(RuntimeError, match="without calling"):
            await nursery.start(start)
    assert recorder.since(1) == STOPS[1]


async def _stop_at_1(control: Control) -> None:
    await trio.sleep_until(1)
    control.stop()


async def test_already_cancelled_it_does_not_begin(recorder: Any, tree: Group) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await run_app(tree, recorder)
    assert scope.cancelled_caught
    assert recorder.story == []


async def test_a_body_that_raises_loses_nothing(autojump_clock: Any) -> None:
    async def fail_at_stop() -> None:
        async with shielded_stop() as control:
            await control.stopping.wait()
            raise LookupError("kept")

    with pytest.raises(ExceptionGroup) as caught, trio.move_on_after(1):
        await fail_at_stop()
    assert caught.group_contains(LookupError, match="kept", depth=1)


async def test_a_body_that_ends_is_no_cancellation() -> None:
    async with shielded_stop() as control:
        assert not control.stopping.is_set()
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("time", "events"),
    {
        3: ["3 cancelled app", "3 cancelled app/a", "3 cancelled app/b"],
        5: ["5 cancelled app", "5 cancelled app/a", "5 cancelled app/b"],
        7: ["7 cancelled app", "7 cancelled app/a", "7 cancelled app/b"],
        10: ["10 cancelled app", "10 cancelled app/a", "10 cancelled app/b"],
    }.items(),
)
async def test_without_the_shield_it_is_a_plain_cancellation(
    autojump_clock: Any, time: float, events: list[str], tree: Group, script: Any, recorder: Any
) -> None:
    """In every phase, the last one while it stops: all at once, and all told."""
    control = Control()
    with trio.move_on_at(time) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_at_9, control)
            await supervise(tree, control=control, observer=recorder)
    assert scope.cancelled_caught
    assert [line for line in sorted(recorder.since(time)) if "cancelled" in line] == events
    assert (script.alive, recorder.illegal) == (0, [])


async def test_without_the_shield_no_failure_is_lost(
    autojump_clock: Any, script: Any, act: Any, recorder: Any
) -> None:
    failing = script(act(ignores=1, cancel_fails=True))

    async def in_company(*, stopping: trio.Event, task_status: trio.TaskStatus[Any]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await failing(stopping=stopping, task_status=task_status)

    tree = Group(
        name="app",
        strategy=Strategy.ONE_FOR_ONE,
        children=[Child(name="a", serve=script()), Child(name="b", serve=in_company)],
    )
    with pytest.raises(ExceptionGroup, match="app failed") as caught, trio.move_on_at(2):
        await supervise(tree, control=Control(), observer=recorder)
    assert caught.group_contains(type(failing.raised[0]))
    assert recorder.since(2) == ["2 cancelled app/a", "3 failed app/b", "3 failed app"]
