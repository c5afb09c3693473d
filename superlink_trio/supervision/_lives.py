"""What is remembered about a tree while it runs.

One run of a child's service, or of a group, is a *life*. A *member* is a child or group in its
place, with one life after another; a *team* is what they are together during one life of their
group.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import trio

from ._control import Control
from ._events import TRANSITIONS, Event, EventKind
from ._spec import Child, Group, Intensity, Restart

_UP = frozenset({EventKind.READY, EventKind.STOPPED})


class TooManyRestarts(Exception):
    """A group gave up: its children failed more often than its intensity allows.

    `causes` holds the failures that counted, oldest first; they are shown as the cause too.
    """

    def __init__(self, path: str, intensity: Intensity, causes: Sequence[Exception]) -> None:
        super().__init__(
            f"{path}: more than {intensity.restarts} restarts within {intensity.period:g} s"
        )
        self.causes = tuple(causes)
        self.__cause__ = ExceptionGroup(f"what failed in {path}", self.causes)


@attrs.define(eq=False)
class Tree:
    """What all parts of one `supervise` share."""

    control: Control
    observer: Callable[[Event], None]
    rng: random.Random
    observer_failures: list[Exception] = attrs.field(factory=list)

    def emit(self, event: Event) -> None:
        try:
            self.observer(event)
        except Exception as error:
            self.observer_failures.append(error)
            self.control.stop()


@attrs.define(eq=False)
class Member:
    """A child or group in its place, through all its lives while the group it is in has one."""

    tree: Tree
    spec: Child | Group
    path: str
    team: Team | None = None
    """None for the root."""
    before: Member | None = None
    """Rest-for-one: whose lives this one's are inside."""
    state: EventKind | None = None
    failure: BaseException | None = None
    """Its last failure, until a restart is to repair it."""
    was_ready: bool = False
    attempt: int = 0

    @property
    def stands_on_a_failure(self) -> bool:
        """Whether somebody in front has failed, so that a request to stop is on its way."""
        member = self.before
        while member is not None and member.state is not EventKind.FAILED:
            member = member.before
        return member is not None

    def emit(self, kind: EventKind, **details: Any) -> None:
        assert kind in TRANSITIONS[self.state], f"{self.path}: {self.state} to {kind}"
        self.state = kind
        self.tree.emit(Event(kind=kind, path=self.path, time=trio.current_time(), **details))


@attrs.define(eq=False)
class Life:
    """One life of a member. Its service sees it as `task_status`."""

    member: Member
    stopping: trio.Event = attrs.field(factory=trio.Event)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    settled: trio.Event = attrs.field(factory=trio.Event)
    """Ready, or ended without having been."""
    ended: trio.Event = attrs.field(factory=trio.Event)
    rest_stopping: trio.Event = attrs.field(factory=trio.Event)
    rest_ended: trio.Event = attrs.field(factory=trio.Event)
    ready_at: float | None = None
    restart: bool = False
    """It has failed, and another life is to follow."""

    def started(self, value: object = None) -> None:
        """Be ready, unless it was asked to stop meanwhile."""
        if self.settled.is_set():
            raise RuntimeError(f"{self.member.path} called task_status.started() twice")
        self.settled.set()
        if self.member.state is EventKind.STARTING:
            self.ready_at = trio.current_time()
            self.member.was_ready = True
            self.member.emit(EventKind.READY, value=value)
            if self.member.team is not None:
                self.member.team.ready_if_all_are()

    def fail(self, error: BaseException) -> None:
        member = self.member
        member.failure = error
        maximum = member.spec.backoff.maximum
        if self.ready_at is not None and trio.current_time() - self.ready_at >= maximum:
            member.attempt = 0
        member.emit(EventKind.FAILED, cause=error)

    async def end_rest(self) -> None:
        self.rest_stopping.set()
        if self.ready_at is not None:
            await self.rest_ended.wait()


@attrs.define(eq=False)
class Team:
    """One life of a group, and how often its members failed in it."""

    life: Life
    intensity: Intensity
    members: Sequence[Member] = ()
    restarts: deque[tuple[float, Exception]] = attrs.field(factory=deque)
    giving_up: bool = False
    complete: bool = False
    """Whether every member was started."""

    def all_started(self) -> None:
        self.complete = True
        self.ready_if_all_are()

    def ready_if_all_are(self) -> None:
        """Make the group ready, unless it is.

        Who has returned by itself counts as ready; who is being restarted is waited for.
        """
        if not self.complete or self.giving_up or self.life.settled.is_set():
            return
        if all(member.state in _UP for member in self.members):
            self.life.started()

    def may_restart(self, life: Life) -> bool:
        """Whether a life that has failed is followed by another; counts it if so."""
        member, failure = life.member, life.member.failure
        if self.giving_up or member.spec.restart is Restart.NEVER or not member.was_ready:
            return False
        if life.stopping.is_set() and self.life.stopping.is_set():
            return False
        if not isinstance(failure, Exception):
            return False
        now = trio.current_time()
        self.restarts.append((now, failure))
        while self.restarts[0][0] <= now - self.intensity.period:
            self.restarts.popleft()
        if len(self.restarts) <= self.intensity.restarts:
            return True
        causes = [cause for _, cause in self.restarts]
        member.failure = TooManyRestarts(self.life.member.path, self.intensity, causes)
        return False

    async def give_up(self) -> None:
        """End the life of the group, what was started after the group first."""
        self.giving_up = True
        await self.life.end_rest()
        self.life.stopping.set()
