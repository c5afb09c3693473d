"""Whatever the tree and whatever goes wrong in it: what always holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import at_most
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
    shielded_stop,
    supervise,
)

ENDED = {EventKind.STOPPED, EventKind.CANCELLED, EventKind.FAILED}
SECONDS = st.integers(0, 6).map(float)
BACKOFFS = st.builds(Backoff, initial=SECONDS, maximum=st.just(8), jitter=st.just(0))
RESTARTS = st.sampled_from(Restart)


@attrs.frozen
class Plan:
    """A tree and what happens to it from outside."""

    root: Group
    scripts: dict[str, Any]
    stop: float
    cancel: float | None
    how: str


@st.composite
def plans(draw: st.DrawFn, act: Any, script: Any) -> Plan:
    scripts: dict[str, Any] = {}
    acts = st.builds(
        act,
        starts=SECONDS,
        start_fails=st.integers(0, 5).map(lambda number: number == 0),
        serves=st.one_of(st.just(float("inf")), st.integers(0, 20).map(float)),
        serve_fails=st.booleans(),
        stops=SECONDS,
        stop_fails=st.integers(0, 4).map(lambda number: number == 0),
        ignores=SECONDS,
        cancel_fails=st.integers(0, 4).map(lambda number: number == 0),
    )

    def node(path: str, depth: int) -> Child | Group:
        name = path.rpartition("/")[2]
        restart, backoff = draw(RESTARTS), draw(BACKOFFS)
        if depth == 0 or (depth < 3 and draw(st.booleans())):
            scripts[path] = script(*draw(st.lists(acts, min_size=1, max_size=3)))
            return Child(
                name=name,
                serve=scripts[path],
                restart=restart,
                backoff=backoff,
                grace=draw(SECONDS),
            )
        return Group(
            name=name,
            children=[
                node(f"{path}/{letter}", depth - 1) for letter in "abc"[: draw(st.integers(0, 3))]
            ],
            strategy=draw(st.sampled_from(Strategy)),
            restart=Restart.NEVER if depth == 3 else restart,
            backoff=backoff,
            intensity=draw(st.builds(Intensity, restarts=st.integers(0, 4), period=st.just(40.0))),
        )

    root = node("r", 3)
    assert isinstance(root, Group)
    return Plan(
        root,
        scripts,
        stop=draw(st.integers(0, 60)) + draw(st.sampled_from([0, 0.5])),
        cancel=draw(st.one_of(st.none(), SECONDS)),
        how=draw(st.sampled_from(["control", "shielded", "plain"])),
    )


@attrs.define
class Outcome:
    plan: Plan
    events: list[Event]
    error: BaseException | None = None
    ended: float = 0.0

    @property
    def groups(self) -> Iterator[tuple[str, Group]]:
        yield from _groups(self.plan.root.name, self.plan.root)


def _groups(path: str, group: Group) -> Iterator[tuple[str, Group]]:
    yield path, group
    for child in group.children:
        if isinstance(child, Group):
            yield from _groups(f"{path}/{child.name}", child)


def carry_out(plan: Plan, observer: Any) -> Outcome:
    outcome = Outcome(plan, observer.events)

    async def hurry(control: Control) -> None:
        await trio.sleep_until(plan.stop)
        if plan.how == "control":
            control.stop()
        if plan.cancel is not None and plan.how != "plain":
            await trio.sleep(plan.cancel)
            control.cancel()

    async def main() -> None:
        with trio.CancelScope() as scope:
            if plan.how != "control":
                scope.deadline = plan.stop
            if plan.how == "shielded":
                async with shielded_stop() as control:
                    await tree(control)
            else:
                await tree(Control())
        outcome.ended = trio.current_time()

    async def tree(control: Control) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hurry, control)
            try:
                await supervise(plan.root, control=control, observer=observer)
            except ExceptionGroup as error:
                outcome.error = error
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return outcome


def leaves(error: BaseException | None) -> list[BaseException]:
    """What failed, the failures behind too many restarts in its place."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    if isinstance(error, TooManyRestarts):
        return [leaf for inner in error.causes for leaf in leaves(inner)]
    return [] if error is None else [error]


def check_everybody_ended(outcome: Outcome) -> None:
    last = {event.path: event.kind for event in outcome.events}
    assert set(last.values()) <= ENDED


def check_every_failure_told_once(outcome: Outcome) -> None:
    for path, script in outcome.plan.scripts.items():
        told = [e.cause for e in outcome.events if e.path == path and e.kind is EventKind.FAILED]
        assert told == script.raised


def check_what_comes_out(outcome: Outcome) -> None:
    """What failed and was not started again, nothing else, and nothing twice.

    A plain cancellation may come between a failure that counts against the group and its restart:
    then it is told for itself too, rather than not at all.
    """
    final = leaves(outcome.error)
    assert outcome.plan.how == "plain" or len(set(map(id, final))) == len(final)
    raised = [error for script in outcome.plan.scripts.values() for error in script.raised]
    assert {id(error) for error in final} <= {id(error) for error in raised}
    for path in outcome.plan.scripts:
        mine = [e for e in outcome.events if e.path == path]
        if not mine or mine[-1].kind is not EventKind.FAILED:
            continue
        since = outcome.events[outcome.events.index(mine[-1]) :]
        repaired = {e.path for e in since if e.kind in (EventKind.RESTARTING, EventKind.STARTING)}
        if not any(path.startswith(f"{above}/") for above in repaired):
            assert any(error is mine[-1].cause for error in final)


def check_order(outcome: Outcome) -> None:
    """Nobody starts before those in front are ready, nor stops before those behind have ended."""
    for path, group in outcome.groups:
        names = [f"{path}/{child.name}" for child in group.children]
        chained = group.strategy is Strategy.REST_FOR_ONE
        states: dict[str, EventKind] = {}
        was_ready: set[str] = set()
        for event in outcome.events:
            if event.path == path and event.kind is EventKind.STARTING:
                states, was_ready = {}, set()
            if event.path not in names:
                continue
            place = names.index(event.path)
            before, after = names[:place], names[place + 1 :]
            if event.kind is EventKind.STARTING:
                assert was_ready.issuperset(before)
                if chained:
                    up = {EventKind.READY, EventKind.STOPPED}
                    assert {states[name] for name in before} <= up
            if event.kind is EventKind.READY:
                was_ready.add(event.path)
            if event.kind is EventKind.STOPPING and chained:
                assert {states[name] for name in after if name in states} <= ENDED
            states[event.path] = event.kind


def check_ready_means_all(outcome: Outcome) -> None:
    """A group is ready when each of its children is, or has ended by itself after it was."""
    for path, group in outcome.groups:
        names = {f"{path}/{child.name}" for child in group.children}
        states: dict[str, EventKind] = {}
        for event in outcome.events:
            if event.path == path and event.kind is EventKind.STARTING:
                states = {}
            if event.path in names:
                states[event.path] = event.kind
            if event.path == path and event.kind is EventKind.READY:
                assert states.keys() == names
                assert set(states.values()) <= {EventKind.READY, EventKind.STOPPED}


def check_no_start_after_the_stop(outcome: Outcome) -> None:
    if outcome.plan.how == "control":
        late = [e for e in outcome.events if e.time > outcome.plan.stop]
        assert not [e for e in late if e.kind is EventKind.STARTING]


def check_stop_is_bounded(outcome: Outcome) -> None:
    plan = outcome.plan
    ignored = sum(max(act.ignores for act in s.played) for s in plan.scripts.values() if s.played)
    if plan.how == "plain":
        limit = ignored
    elif plan.cancel is not None:
        limit = min(plan.root.grace, plan.cancel) + ignored
    else:
        limit = plan.root.grace + ignored
    assert outcome.ended <= plan.stop + limit


def test_what_always_holds(act: Any, script: Any, new_recorder: Callable[[], Any]) -> None:
    @settings(max_examples=at_most(300), deadline=None)
    @given(plans(act, script))
    def check(plan: Plan) -> None:
        recorder = new_recorder()
        outcome = carry_out(plan, recorder)
        assert script.alive == 0
        assert recorder.illegal == []
        check_everybody_ended(outcome)
        check_every_failure_told_once(outcome)
        check_what_comes_out(outcome)
        check_order(outcome)
        check_ready_means_all(outcome)
        check_no_start_after_the_stop(outcome)
        check_stop_is_bounded(outcome)

    check()
