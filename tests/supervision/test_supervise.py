"""Whole event sequences, to the event and the second."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from superlink_trio.supervision import (
    Backoff,
    Child,
    Control,
    Event,
    EventKind,
    Group,
    Intensity,
    Restart,
    Strategy,
    TooManyRestarts,
    supervise,
)

STEADY = Backoff(initial=1, factor=2, maximum=30, jitter=0)


@pytest.fixture(autouse=True)
def _nothing_left(script: Any, recorder: Any) -> Iterator[None]:
    yield
    assert script.alive == 0
    assert recorder.illegal == []


def child(name: str, serve: Any, **options: Any) -> Child:
    return Child(name=name, serve=serve, backoff=STEADY, **options)


def restarted(name: str, serve: Any, **options: Any) -> Child:
    return child(name, serve, restart=Restart.ON_FAILURE, **options)


def chain(name: str, *children: Child | Group, **options: Any) -> Group:
    strategy = Strategy.REST_FOR_ONE
    return Group(name=name, children=children, strategy=strategy, backoff=STEADY, **options)


def beside(name: str, *children: Child | Group, **options: Any) -> Group:
    strategy = Strategy.ONE_FOR_ONE
    return Group(name=name, children=children, strategy=strategy, backoff=STEADY, **options)


async def run(
    tree: Group, observer: Callable[[Event], None], *, stop: float = 50, cancel: float = 1000
) -> None:
    """Supervise a tree that is asked to stop, and then to hurry, at the times given."""
    control = Control()

    failure = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_at, stop, control.stop)
        nursery.start_soon(_at, cancel, control.cancel)
        try:
            await supervise(tree, control=control, observer=observer, rng=random.Random(1))
        except BaseExceptionGroup as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _at(time: float, do: Callable[[], None]) -> None:
    await trio.sleep_until(time)
    do()


class TestStartAndStop:
    async def test_start_in_order_stop_in_reverse(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = chain(
            "app",
            child("state", script(act(starts=2, stops=1))),
            beside(
                "apis",
                child("driver", script(act(starts=1, stops=3))),
                child("fleet", script(act(starts=1, stops=2))),
            ),
            child("admin", script(act(starts=1, stops=1))),
        )
        await run(tree, recorder, stop=10)
        assert recorder.story == [
            "0 starting app",
            "0 starting app/state",
            "2 ready app/state",
            "2 starting app/apis",
            "2 starting app/apis/driver",
            "3 ready app/apis/driver",
            "3 starting app/apis/fleet",
            "4 ready app/apis/fleet",
            "4 ready app/apis",
            "4 starting app/admin",
            "5 ready app/admin",
            "5 ready app",
            "10 stopping app",
            "10 stopping app/admin",
            "11 stopped app/admin",
            "11 stopping app/apis",
            "11 stopping app/apis/driver",
            "11 stopping app/apis/fleet",
            "13 stopped app/apis/fleet",
            "14 stopped app/apis/driver",
            "14 stopped app/apis",
            "14 stopping app/state",
            "15 stopped app/state",
            "15 stopped app",
        ]

    async def test_ready_tells_what_the_service_gave(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        given = act()
        await run(chain("app", child("a", script(given))), recorder)
        values = {e.path: e.value for e in recorder.events if e.kind is EventKind.READY}
        assert values == {"app/a": given, "app": None}

    async def test_started_when_everything_is_ready(
        self, autojump_clock: Any, script: Any, act: Any
    ) -> None:
        tree = chain("app", child("a", script(act(starts=1))), child("b", script(act(starts=2))))
        control = Control()
        async with trio.open_nursery() as nursery:

            async def started(task_status: trio.TaskStatus[None]) -> None:
                await supervise(
                    tree, control=control, observer=lambda event: None, task_status=task_status
                )

            await nursery.start(started)
            assert trio.current_time() == 3
            control.stop()

    async def test_crash_before_ready_takes_down_what_was_started(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        failing = script(act(starts=1, start_fails=True))
        tree = chain(
            "app",
            child("a", script()),
            child("b", script(act(stops=1))),
            restarted("c", failing),
            child("d", script()),
        )
        with pytest.raises(ExceptionGroup, match="app failed") as caught:
            await run(tree, recorder)
        assert recorder.story == [
            "0 starting app",
            "0 starting app/a",
            "0 ready app/a",
            "0 starting app/b",
            "0 ready app/b",
            "0 starting app/c",
            "1 failed app/c",
            "1 stopping app/b",
            "2 stopped app/b",
            "2 stopping app/a",
            "2 stopped app/a",
            "2 failed app",
        ]
        assert list(caught.value.exceptions) == failing.raised == recorder.causes("app/c")
        assert recorder.causes("app") == [caught.value]
        frames = [frame.name for frame in traceback.extract_tb(failing.raised[0].__traceback__)]
        assert frames[-2:] == ["_play", "_fail_if"]

    async def test_crash_before_ready_beside_others(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = beside(
            "app",
            child("a", script(act(stops=1))),
            child("b", script(act(start_fails=True))),
            child("c", script()),
        )
        with pytest.raises(ExceptionGroup):
            await run(tree, recorder)
        assert recorder.story == [
            "0 starting app",
            "0 starting app/a",
            "0 ready app/a",
            "0 starting app/b",
            "0 failed app/b",
            "0 stopping app/a",
            "1 stopped app/a",
            "1 failed app",
        ]

    async def test_beside_others_the_last_one_has_to_be_ready_too(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = beside(
            "app", child("a", script(act(stops=1))), child("b", script(act(start_fails=True)))
        )
        told = []

        async def started(task_status: trio.TaskStatus[None]) -> None:
            with pytest.raises(ExceptionGroup):
                await supervise(tree, control=Control(), observer=recorder, task_status=task_status)

        async with trio.open_nursery() as nursery:
            with pytest.raises(RuntimeError, match="without calling"):
                told.append(await nursery.start(started))
        assert told == []
        assert recorder.story == [
            "0 starting app",
            "0 starting app/a",
            "0 ready app/a",
            "0 starting app/b",
            "0 failed app/b",
            "0 stopping app/a",
            "1 stopped app/a",
            "1 failed app",
        ]

    async def test_who_is_restarted_while_another_starts_is_waited_for(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = beside(
            "app",
            restarted("a", script(act(serves=1, serve_fails=True), act(starts=3))),
            child("b", script(act(starts=1.5))),
            child("c", script()),
        )
        await run(tree, recorder, stop=10)
        assert [line for line in recorder.story if float(line.split()[0]) < 10] == [
            "0 starting app",
            "0 starting app/a",
            "0 ready app/a",
            "0 starting app/b",
            "1 failed app/a",
            "1 restarting app/a",
            "1.5 ready app/b",
            "1.5 starting app/c",
            "1.5 ready app/c",
            "2 starting app/a",
            "5 ready app/a",
            "5 ready app",
        ]

    async def test_a_return_without_being_ready_is_a_failure(
        self, autojump_clock: Any, recorder: Any
    ) -> None:
        async def forgets(*, stopping: trio.Event, task_status: trio.TaskStatus[Any]) -> None:
            await trio.sleep(1)

        with pytest.raises(ExceptionGroup) as caught:
            await run(chain("app", child("a", forgets)), recorder)
        assert [str(error) for error in caught.value.exceptions] == [
            "app/a returned without calling task_status.started()"
        ]

    async def test_ready_twice_is_a_failure(self, autojump_clock: Any, recorder: Any) -> None:
        async def repeats(*, stopping: trio.Event, task_status: trio.TaskStatus[Any]) -> None:
            task_status.started()
            task_status.started()

        with pytest.raises(ExceptionGroup) as caught:
            await run(chain("app", child("a", repeats)), recorder)
        assert [str(error) for error in caught.value.exceptions] == [
            "app/a called task_status.started() twice"
        ]

    @pytest.mark.parametrize("group", [chain, beside])
    async def test_an_empty_group_is_ready_and_ends(
        self, autojump_clock: Any, group: Any, recorder: Any
    ) -> None:
        await run(group("app"), recorder)
        assert recorder.story == ["0 starting app", "0 ready app", "0 stopped app"]

    @pytest.mark.parametrize("group", [chain, beside])
    async def test_a_return_ends_the_child_only(
        self, autojump_clock: Any, group: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = group(
            "app",
            restarted("a", script(act(serves=1))),
            restarted("b", script(act(serves=3))),
            child("c", script(act(serves=2))),
        )
        await run(tree, recorder)
        assert recorder.since(1) == [
            "1 stopped app/a",
            "2 stopped app/c",
            "3 stopped app/b",
            "3 stopped app",
        ]

    async def test_who_has_returned_is_not_stopped(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = chain("app", child("a", script(act(serves=1))), child("b", script()))
        await run(tree, recorder, stop=5)
        assert recorder.since(1) == [
            "1 stopped app/a",
            "5 stopping app",
            "5 stopping app/b",
            "5 stopped app/b",
            "5 stopped app",
        ]

    async def test_grace_then_cancel_then_wait(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = chain(
            "app",
            child("a", script()),
            child("b", script(act(stops=99, ignores=4)), grace=2),
            child("c", script(act(stops=3)), grace=3.5),
        )
        await run(tree, recorder, stop=1)
        assert recorder.since(1) == [
            "1 stopping app",
            "1 stopping app/c",
            "4 stopped app/c",
            "4 stopping app/b",
            "10 cancelled app/b",
            "10 stopping app/a",
            "10 stopped app/a",
            "10 stopped app",
        ]

    @pytest.mark.parametrize("group", [chain, beside])
    async def test_stop_while_starting_cancels_at_once(
        self, autojump_clock: Any, group: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = group(
            "app",
            child("a", script(act(stops=2))),
            child("b", script(act(starts=9, ignores=1))),
            child("c", script()),
        )
        await run(tree, recorder, stop=5)
        order = recorder.since(5)
        assert {"5 stopping app", "5 stopping app/b", "6 cancelled app/b"} <= set(order)
        if group is chain:
            assert order[3:] == ["6 stopping app/a", "8 stopped app/a", "8 stopped app"]
        else:
            assert order[1:3] == ["5 stopping app/a", "5 stopping app/b"]
            assert order[4:] == ["7 stopped app/a", "7 stopped app"]

    async def test_ready_too_late_to_be_told(self, autojump_clock: Any, recorder: Any) -> None:
        async def stubborn(*, stopping: trio.Event, task_status: trio.TaskStatus[Any]) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
            task_status.started()

        await run(chain("app", child("a", stubborn), child("b", stubborn)), recorder, stop=1)
        assert recorder.story == [
            "0 starting app",
            "0 starting app/a",
            "1 stopping app",
            "1 stopping app/a",
            "3 stopped app/a",
            "3 stopped app",
        ]

    async def test_stopped_before_it_began(
        self, autojump_clock: Any, script: Any, recorder: Any
    ) -> None:
        control = Control()
        control.stop()
        await supervise(chain("app", child("a", script())), control=control, observer=recorder)
        assert recorder.story == []

    @pytest.mark.parametrize("group", [chain, beside])
    @pytest.mark.parametrize("stop_at", ["starting app", "ready app/a", "ready app/b"])
    async def test_stop_from_within_the_observer(
        self, autojump_clock: Any, group: Any, stop_at: str, script: Any, recorder: Any
    ) -> None:
        control = Control()

        def observer(event: Event) -> None:
            recorder(event)
            if recorder.story[-1].endswith(stop_at):
                control.stop()

        tree = group("app", child("a", script()), child("b", script()), child("c", script()))
        await supervise(tree, control=control, observer=observer)
        assert recorder.states["app"] is EventKind.STOPPED
        assert "0 ready app" not in recorder.story
        assert "0 starting app/c" not in recorder.story

    async def test_a_thousand_children_in_a_row(
        self, autojump_clock: Any, script: Any, recorder: Any
    ) -> None:
        tree = chain("app", *(child(f"c{number}", script()) for number in range(1000)))
        await run(tree, recorder, stop=1)
        assert [line.split("/")[1] for line in recorder.since(1)[1:-1:2]] == [
            f"c{number}" for number in reversed(range(1000))
        ]


class TestFailuresAtStop:
    async def test_stopping_goes_on(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        first, second = script(act(stops=1, stop_fails=True)), script(act(stop_fails=True))
        tree = chain("app", restarted("a", first), child("b", script()), restarted("c", second))
        with pytest.raises(ExceptionGroup) as caught:
            await run(tree, recorder, stop=1)
        assert recorder.since(1) == [
            "1 stopping app",
            "1 stopping app/c",
            "1 failed app/c",
            "1 stopping app/b",
            "1 stopped app/b",
            "1 stopping app/a",
            "2 failed app/a",
            "2 failed app",
        ]
        assert list(caught.value.exceptions) == first.raised + second.raised

    async def test_failure_while_being_cancelled(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        failing = script(act(stops=9, ignores=1, cancel_fails=True))
        with pytest.raises(ExceptionGroup) as caught:
            await run(chain("app", child("a", failing, grace=2)), recorder, stop=1)
        assert recorder.since(1) == [
            "1 stopping app",
            "1 stopping app/a",
            "4 failed app/a",
            "4 failed app",
        ]
        assert list(caught.value.exceptions) == failing.raised

    async def test_a_crash_while_the_rest_stops(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        """The stop comes before the restart: nothing is started any more."""
        tree = chain(
            "app",
            restarted("a", script(act(serves=2, serve_fails=True))),
            child("b", script(act(stops=5))),
        )
        await run(tree, recorder, stop=1)
        assert recorder.since(1) == [
            "1 stopping app",
            "1 stopping app/b",
            "2 failed app/a",
            "6 stopped app/b",
            "6 restarting app/a",
            "6 stopped app/a",
            "6 stopped app",
        ]


class TestRestart:
    async def test_backoff_grows_and_starts_over(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        crash = act(serve_fails=True, serves=0)
        soon, late = act(serve_fails=True, serves=29), act(serve_fails=True, serves=30)
        tree = chain(
            "app",
            restarted("a", script(crash, crash, soon, late, act())),
            intensity=Intensity(restarts=9),
        )
        await run(tree, recorder, stop=90)
        delays = [event.delay for event in recorder.events if event.delay is not None]
        assert delays == [1, 2, 4, 1]
        assert recorder.since(32)[:4] == [
            "32 failed app/a",
            "32 restarting app/a",
            "36 starting app/a",
            "36 ready app/a",
        ]

    async def test_failing_to_come_back_is_one_more_failure(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = chain(
            "app",
            restarted("a", script(act(serves=1, serve_fails=True), act(start_fails=True), act())),
        )
        await run(tree, recorder, stop=5)
        assert recorder.since(1)[:7] == [
            "1 failed app/a",
            "1 restarting app/a",
            "2 starting app/a",
            "2 failed app/a",
            "2 restarting app/a",
            "4 starting app/a",
            "4 ready app/a",
        ]

    @pytest.mark.parametrize("stop", [1.5, 3.5])
    async def test_stop_ends_a_backoff_at_once(
        self, autojump_clock: Any, stop: float, script: Any, act: Any, recorder: Any
    ) -> None:
        """In the first backoff, and in the second after a crash on the way back."""
        tree = chain(
            "app",
            restarted("a", script(act(serves=1, serve_fails=True), act(start_fails=True))),
        )
        await run(tree, recorder, stop=stop)
        assert recorder.since(stop) == [
            f"{stop} stopping app",
            f"{stop} stopped app/a",
            f"{stop} stopped app",
        ]

    async def test_rest_for_one_restarts_what_came_after(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = chain(
            "app",
            child("a", script()),
            restarted("b", script(act(serves=1, serve_fails=True), act(starts=1))),
            child("c", script(act(stops=1))),
            child("d", script(act(serves=0.5))),
            child("e", script(act(stops=1))),
        )
        await run(tree, recorder, stop=6)
        assert recorder.since(0.5) == [
            "0.5 stopped app/d",
            "1 failed app/b",
            "1 stopping app/e",
            "2 stopped app/e",
            "2 stopping app/c",
            "3 stopped app/c",
            "3 restarting app/b",
            "4 starting app/b",
            "5 ready app/b",
            "5 starting app/c",
            "5 ready app/c",
            "5 starting app/d",
            "5 ready app/d",
            "5 starting app/e",
            "5 ready app/e",
            "5.5 stopped app/d",
            "6 stopping app",
            "6 stopping app/e",
            "7 stopped app/e",
            "7 stopping app/c",
            "8 stopped app/c",
            "8 stopping app/b",
            "8 stopped app/b",
            "8 stopping app/a",
            "8 stopped app/a",
            "8 stopped app",
        ]

    async def test_one_for_one_leaves_the_others_alone(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = beside(
            "app",
            restarted("a", script(act(serves=1, serve_fails=True), act())),
            child("b", script(act(starts=3))),
        )
        await run(tree, recorder, stop=4)
        assert recorder.story[:9] == [
            "0 starting app",
            "0 starting app/a",
            "0 ready app/a",
            "0 starting app/b",
            "1 failed app/a",
            "1 restarting app/a",
            "2 starting app/a",
            "2 ready app/a",
            "3 ready app/b",
        ]

    async def test_a_backoff_ends_when_what_it_stands_on_crashes(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = chain(
            "app",
            restarted("a", script(act(serves=1.5, serve_fails=True), act())),
            restarted("b", script(act(serves=1, serve_fails=True), act())),
        )
        await run(tree, recorder, stop=3)
        assert recorder.since(1)[:8] == [
            "1 failed app/b",
            "1 restarting app/b",
            "1.5 failed app/a",
            "1.5 stopped app/b",
            "1.5 restarting app/a",
            "2.5 starting app/a",
            "2.5 ready app/a",
            "2.5 starting app/b",
        ]

    def test_nobody_starts_in_the_instant_in_which_what_it_stands_on_crashes(
        self, script: Any, act: Any, new_recorder: Any
    ) -> None:
        """Which of two tasks runs first in an instant is left to chance: again and again."""
        for _ in range(60):
            recorder = new_recorder()
            tree = chain(
                "app",
                restarted("a", script(act(serves=5, serve_fails=True), act())),
                child("b", script()),
                restarted("c", script(act(serves=4, serve_fails=True), act())),
            )
            trio.run(run, tree, recorder, clock=trio.testing.MockClock(autojump_threshold=0))
            story = recorder.since(5)
            failed = story.index("5 failed app/a")
            started = [line for line in story[failed:] if line.startswith("5 starting")]
            assert started == [], story

    async def test_crash_before_the_rest_was_ever_ready(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        """What is cancelled for a sibling's restart was not ready yet: failing then is final."""
        failing = script(act(starts=5), act(start_fails=True))
        tree = chain(
            "app",
            restarted("a", script(act(serves=1, serve_fails=True), act())),
            restarted("b", failing),
        )
        with pytest.raises(ExceptionGroup) as caught:
            await run(tree, recorder)
        assert recorder.since(1) == [
            "1 failed app/a",
            "1 stopping app/b",
            "1 cancelled app/b",
            "1 restarting app/a",
            "2 starting app/a",
            "2 ready app/a",
            "2 starting app/b",
            "2 failed app/b",
            "2 stopping app/a",
            "2 stopped app/a",
            "2 failed app",
        ]
        assert list(caught.value.exceptions) == failing.raised

    async def test_failing_to_stop_for_a_restart_is_repaired_by_it(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = chain(
            "app",
            restarted("a", script(act(serves=1, serve_fails=True), act())),
            restarted("b", script(act(stop_fails=True), act())),
        )
        await run(tree, recorder, stop=3)
        assert recorder.since(1)[:10] == [
            "1 failed app/a",
            "1 stopping app/b",
            "1 failed app/b",
            "1 restarting app/b",
            "1 stopped app/b",
            "1 restarting app/a",
            "2 starting app/a",
            "2 ready app/a",
            "2 starting app/b",
            "2 ready app/b",
        ]

    async def test_failing_to_stop_for_a_restart_may_be_final(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        failing = script(act(stop_fails=True))
        tree = chain(
            "app",
            child("base", script()),
            restarted("a", script(act(serves=1, serve_fails=True))),
            child("b", failing),
        )
        with pytest.raises(ExceptionGroup) as caught:
            await run(tree, recorder)
        assert recorder.since(1) == [
            "1 failed app/a",
            "1 stopping app/b",
            "1 failed app/b",
            "1 restarting app/a",
            "1 stopped app/a",
            "1 stopping app/base",
            "1 stopped app/base",
            "1 failed app",
        ]
        assert list(caught.value.exceptions) == failing.raised

    async def test_too_many_restarts(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        one = script(act(serves=1, serve_fails=True))
        tree = beside(
            "app",
            restarted("a", one),
            child("b", script(act(stops=1))),
            intensity=Intensity(restarts=2, period=10),
        )
        with pytest.raises(ExceptionGroup) as caught:
            await run(tree, recorder)
        assert recorder.since(1) == [
            "1 failed app/a",
            "1 restarting app/a",
            "2 starting app/a",
            "2 ready app/a",
            "3 failed app/a",
            "3 restarting app/a",
            "5 starting app/a",
            "5 ready app/a",
            "6 failed app/a",
            "6 stopping app/b",
            "7 stopped app/b",
            "7 failed app",
        ]
        [error] = caught.value.exceptions
        assert isinstance(error, TooManyRestarts)
        assert str(error) == "app: more than 2 restarts within 10 s"
        assert list(error.causes) == one.raised
        assert "Boom: 2" in "".join(traceback.format_exception(error))

    async def test_who_fails_after_the_group_gave_up_is_told_once(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        """The second comes while what stands on the group is still stopping."""
        first = script(act(serves=1, serve_fails=True))
        second = script(act(serves=2, serve_fails=True))
        tree = chain(
            "app",
            beside(
                "group",
                restarted("a", first),
                restarted("b", second),
                intensity=Intensity(restarts=0),
            ),
            child("after", script(act(stops=5))),
        )
        with pytest.raises(ExceptionGroup) as caught:
            await run(tree, recorder)
        [group] = caught.value.exceptions
        assert isinstance(group, ExceptionGroup)
        [too_many, other] = group.exceptions
        assert isinstance(too_many, TooManyRestarts)
        assert [list(too_many.causes), [other]] == [first.raised, second.raised]

    async def test_restarts_long_ago_do_not_count(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = chain(
            "app",
            restarted("a", script(act(serves=31, serve_fails=True))),
            intensity=Intensity(restarts=1, period=32),
        )
        await run(tree, recorder, stop=320)
        assert len(recorder.causes("app/a")) == 10


class TestNested:
    @pytest.mark.parametrize("outer", [chain, beside])
    @pytest.mark.parametrize("inner", [chain, beside])
    async def test_a_failure_goes_up_to_the_root(
        self, autojump_clock: Any, outer: Any, inner: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        """The rest stops before the group that fails, and what stands before it comes last."""
        failing = script(act(serves=1, serve_fails=True))
        tree = outer(
            "app",
            child("before", script(act(stops=2))),
            inner("group", child("a", failing), child("b", script(act(stops=1)))),
            child("after", script(act(stops=3))),
        )
        with pytest.raises(ExceptionGroup, match="app failed") as caught:
            await run(tree, recorder)
        if outer is chain:
            expected = [
                "1 failed app/group/a",
                "1 stopping app/after",
                "4 stopped app/after",
                "4 stopping app/group/b",
                "5 stopped app/group/b",
                "5 failed app/group",
                "5 stopping app/before",
                "7 stopped app/before",
                "7 failed app",
            ]
        else:
            expected = [
                "1 failed app/group/a",
                "1 stopping app/group/b",
                "2 stopped app/group/b",
                "2 failed app/group",
                "2 stopping app/after",
                "2 stopping app/before",
                "4 stopped app/before",
                "5 stopped app/after",
                "5 failed app",
            ]
        assert recorder.since(1) == expected
        [group] = caught.value.exceptions
        assert isinstance(group, ExceptionGroup)
        assert group.message == "app/group failed"
        assert list(group.exceptions) == failing.raised

    async def test_a_group_is_restarted_like_a_child(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        """A start of the group that fails is one more failure of it."""
        tree = chain(
            "app",
            chain(
                "group",
                child("a", script(act(stops=1))),
                child("b", script(act(serves=2, serve_fails=True), act(start_fails=True), act())),
                restart=Restart.ON_FAILURE,
            ),
            child("after", script(act(stops=1))),
        )
        await run(tree, recorder, stop=30)
        assert recorder.since(2)[:-10] == [
            "2 failed app/group/b",
            "2 stopping app/after",
            "3 stopped app/after",
            "3 stopping app/group/a",
            "4 stopped app/group/a",
            "4 failed app/group",
            "4 restarting app/group",
            "5 starting app/group",
            "5 starting app/group/a",
            "5 ready app/group/a",
            "5 starting app/group/b",
            "5 failed app/group/b",
            "5 stopping app/group/a",
            "6 stopped app/group/a",
            "6 failed app/group",
            "6 restarting app/group",
            "8 starting app/group",
            "8 starting app/group/a",
            "8 ready app/group/a",
            "8 starting app/group/b",
            "8 ready app/group/b",
            "8 ready app/group",
            "8 starting app/after",
            "8 ready app/after",
        ]

    async def test_a_restart_inside_a_group_stays_inside(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = chain(
            "app",
            chain(
                "group",
                restarted("a", script(act(serves=1, serve_fails=True), act())),
                child("b", script()),
            ),
            child("after", script()),
        )
        await run(tree, recorder, stop=5)
        assert recorder.since(1)[:8] == [
            "1 failed app/group/a",
            "1 stopping app/group/b",
            "1 stopped app/group/b",
            "1 restarting app/group/a",
            "2 starting app/group/a",
            "2 ready app/group/a",
            "2 starting app/group/b",
            "2 ready app/group/b",
        ]
        assert recorder.since(5)[0] == "5 stopping app"

    async def test_restarts_of_a_group_add_up_to_its_failure(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = beside(
            "app",
            beside(
                "group",
                restarted("a", script(act(serves=1, serve_fails=True))),
                intensity=Intensity(restarts=0),
                restart=Restart.ON_FAILURE,
            ),
            intensity=Intensity(restarts=1),
        )
        with pytest.raises(ExceptionGroup) as caught:
            await run(tree, recorder)
        [outer] = caught.value.exceptions
        assert isinstance(outer, TooManyRestarts)
        assert str(outer) == "app: more than 1 restarts within 60 s"
        assert [str(cause) for cause in outer.causes] == ["app/group failed (1 sub-exception)"] * 2
        assert recorder.causes("app/group") == list(outer.causes)


class TestHurry:
    async def test_cancel_keeps_the_order(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = chain(
            "app",
            child("a", script(act(stops=9))),
            beside(
                "group",
                child("b", script(act(stops=9, ignores=2))),
                child("c", script(act(stops=9, ignores=1))),
            ),
            child("d", script(act(stops=9, ignores=1))),
        )
        await run(tree, recorder, cancel=1)
        assert recorder.since(1) == [
            "1 stopping app",
            "1 stopping app/d",
            "2 cancelled app/d",
            "2 stopping app/group",
            "2 stopping app/group/b",
            "2 stopping app/group/c",
            "3 cancelled app/group/c",
            "4 cancelled app/group/b",
            "4 stopped app/group",
            "4 stopping app/a",
            "4 cancelled app/a",
            "4 stopped app",
        ]

    async def test_cancel_ends_a_grace_under_way(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        tree = chain("app", child("a", script(act(stops=5))), child("b", script(act(stops=5))))
        await run(tree, recorder, stop=1, cancel=3)
        assert recorder.since(1) == [
            "1 stopping app",
            "1 stopping app/b",
            "3 cancelled app/b",
            "3 stopping app/a",
            "3 cancelled app/a",
            "3 stopped app",
        ]

    async def test_a_second_stop_changes_nothing(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        control = Control()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_at, 1, control.stop)
            nursery.start_soon(_at, 3, control.stop)
            tree = chain("app", child("a", script(act(stops=5))))
            await supervise(tree, control=control, observer=recorder)
        assert recorder.since(1) == [
            "1 stopping app",
            "1 stopping app/a",
            "6 stopped app/a",
            "6 stopped app",
        ]


class TestErrorsOfOthers:
    async def test_an_observer_that_raises_stops_the_tree_in_order(
        self, autojump_clock: Any, script: Any, act: Any, recorder: Any
    ) -> None:
        failing = script(act(stop_fails=True))
        bug = LookupError("of the observer")

        def observer(event: Event) -> None:
            recorder(event)
            if event.kind is EventKind.READY and event.path == "app/b":
                raise bug

        tree = chain("app", child("a", failing), child("b", script()), child("c", script()))
        with pytest.raises(ExceptionGroup, match="the observer of app failed") as caught:
            await run(tree, observer)
        assert recorder.states == {
            "app": EventKind.FAILED,
            "app/a": EventKind.FAILED,
            "app/b": EventKind.STOPPED,
        }
        [group, error] = caught.value.exceptions
        assert error is bug
        assert isinstance(group, ExceptionGroup)
        assert list(group.exceptions) == failing.raised

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    async def test_interrupts_stop_in_order_and_come_out(
        self, autojump_clock: Any, kind: type[BaseException], script: Any, act: Any, recorder: Any
    ) -> None:
        async def interrupted(*, stopping: trio.Event, task_status: trio.TaskStatus[Any]) -> None:
            task_status.started()
            await trio.sleep(1)
            raise kind

        tree = chain("app", child("a", script(act(stops=1))), restarted("b", interrupted))
        with pytest.raises(BaseExceptionGroup) as caught:
            await run(tree, recorder)
        assert recorder.since(1) == [
            "1 failed app/b",
            "1 stopping app/a",
            "2 stopped app/a",
            "2 failed app",
        ]
        assert [type(error) for error in caught.value.exceptions] == [kind]

    async def test_the_root_cannot_be_restarted(self, recorder: Any) -> None:
        tree = chain("app", restart=Restart.ON_FAILURE)
        with pytest.raises(ValueError, match="'app' is the root"):
            await supervise(tree, control=Control(), observer=recorder)
