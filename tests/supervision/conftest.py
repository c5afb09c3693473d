from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio

from superlink_trio.supervision import TRANSITIONS, Event, EventKind


@attrs.define
class Recorder:
    """An observer that keeps every event and holds each path to the table."""

    events: list[Event] = attrs.field(factory=list)
    states: dict[str, EventKind] = attrs.field(factory=dict)
    illegal: list[str] = attrs.field(factory=list)

    def __call__(self, event: Event) -> None:
        before = self.states.get(event.path)
        if event.kind not in TRANSITIONS[before]:
            self.illegal.append(f"{event.path}: {before} to {event.kind}")
        self.states[event.path] = event.kind
        self.events.append(event)

    @property
    def story(self) -> list[str]:
        """The events as lines: seconds, kind, path.

        Siblings that are asked to stop at once are asked in any order: by name, here.
        """

        def together(event: Event) -> tuple[object, ...]:
            if event.kind is not EventKind.STOPPING:
                return (id(event),)
            return (event.time, event.path.rpartition("/")[0])

        runs = [list(events) for _, events in itertools.groupby(self.events, together)]
        return [
            f"{event.time:g} {event.kind.value} {event.path}"
            for events in runs
            for event in sorted(events, key=lambda event: event.path)
        ]

    def since(self, time: float) -> list[str]:
        """The part of the story that begins at a time."""
        return [line for line in self.story if float(line.split()[0]) >= time]

    def causes(self, path: str) -> list[BaseException | None]:
        return [e.cause for e in self.events if e.path == path and e.kind is EventKind.FAILED]


@attrs.define
class Act:
    """What a service does in one of its lives; times in seconds."""

    starts: float = 0.0
    start_fails: bool = False
    serves: float = math.inf
    serve_fails: bool = False
    stops: float = 0.0
    stop_fails: bool = False
    ignores: float = 0.0
    """How long it goes on after it was cancelled."""
    cancel_fails: bool = False


class Boom(Exception):
    """What an act raises."""


class Script:
    """A service that plays one act after another, the last one again and again."""

    alive = 0

    def __init__(self, *acts: Act) -> None:
        self.acts = list(acts) or [Act()]
        self.played: list[Act] = []
        self.raised: list[Boom] = []

    async def __call__(self, *, stopping: trio.Event, task_status: trio.TaskStatus[Any]) -> None:
        act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
        self.played.append(act)
        type(self).alive += 1
        try:
            await self._play(act, stopping, task_status)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await trio.sleep(act.ignores)
            self._fail_if(act.cancel_fails)
            raise
        finally:
            type(self).alive -= 1

    async def _play(
        self, act: Act, stopping: trio.Event, task_status: trio.TaskStatus[Any]
    ) -> None:
        await trio.sleep(act.starts)
        self._fail_if(act.start_fails)
        task_status.started(act)
        with trio.move_on_after(act.serves):
            await stopping.wait()
        if stopping.is_set():
            await trio.sleep(act.stops)
            self._fail_if(act.stop_fails)
        else:
            self._fail_if(act.serve_fails)

    def _fail_if(self, fails: bool) -> None:
        if fails:
            self.raised.append(Boom(len(self.raised)))
            raise self.raised[-1]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def new_recorder() -> Callable[[], Recorder]:
    return Recorder


@pytest.fixture(scope="session")
def act() -> type[Act]:
    return Act


@pytest.fixture(scope="session")
def script() -> type[Script]:
    return Script


@pytest.fixture(scope="session")
def boom() -> type[Boom]:
    return Boom
