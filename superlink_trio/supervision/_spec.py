"""What a supervision tree is made of, before anything runs: plain frozen values."""

from __future__ import annotations

import enum
import random
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import attrs
import trio
from attrs import validators


class Service(Protocol):
    """Something that becomes ready, serves, and stops when it is asked to.

    It calls `task_status.started(value)` once, when it is really ready (port bound, database
    migrated); the value goes into the READY event. It returns soon after `stopping` is set, and
    it may be cancelled at any checkpoint, at once if it is asked to stop before it was ready.
    """

    async def __call__(self, *, stopping: trio.Event, task_status: trio.TaskStatus[Any]) -> None:
        """Serve until `stopping` is set or there is nothing left to do."""
        ...


class Restart(enum.Enum):
    """What happens when a child fails after it had been ready."""

    NEVER = "never"
    """The failure is its group's failure."""
    ON_FAILURE = "on failure"
    """It is started again, after a delay. Returning without being asked is no failure."""


class Strategy(enum.Enum):
    """What a child's restart means for its siblings."""

    REST_FOR_ONE = "rest for one"
    """Each child stands on those before it: what was started after it is restarted with it."""
    ONE_FOR_ONE = "one for one"
    """Each child stands alone."""


@attrs.frozen
class Backoff:
    """How long to wait before a restart: longer after each failure, up to a maximum.

    The jitter is the fraction of a delay that may be taken off at random, so that what failed
    together does not come back together.
    """

    initial: float = attrs.field(default=0.1, validator=validators.ge(0))
    """Seconds before the first restart."""
    factor: float = attrs.field(default=2.0, validator=validators.ge(1))
    maximum: float = attrs.field(default=30.0, validator=validators.ge(0))
    """The longest delay in seconds. Who has been ready for as long starts over at `initial`."""
    jitter: float = attrs.field(default=0.1, validator=[validators.ge(0), validators.le(1)])

    def delay(self, attempt: int, rng: random.Random) -> float:
        """Seconds to wait before restart number `attempt`, counted from 0."""
        try:
            delay = min(self.initial * self.factor**attempt, self.maximum)
        except OverflowError:
            delay = self.maximum
        return delay * (1 - self.jitter * rng.random())


@attrs.frozen
class Intensity:
    """How many restarts a group bears: more than `restarts` within `period` seconds fail it."""

    restarts: int = attrs.field(default=5, validator=validators.ge(0))
    period: float = attrs.field(default=60.0, validator=validators.gt(0))


def _check_name(instance: object, attribute: attrs.Attribute[str], name: str) -> None:
    if not name or "/" in name:
        raise ValueError(
            f"{name!r} cannot name a {type(instance).__name__.lower()}: "
            "a name is a part of paths like superlink/state, not empty and without a slash"
        )


@attrs.frozen(kw_only=True)
class Child:
    """A leaf of the tree: one service and how it is kept."""

    name: str = attrs.field(validator=_check_name)
    serve: Service
    restart: Restart = Restart.NEVER
    backoff: Backoff = Backoff()
    grace: float = attrs.field(default=10.0, validator=validators.ge(0))
    """Seconds between the request to stop and the cancellation; `math.inf` never cancels."""


def _as_tuple(children: Iterable[Child | Group]) -> tuple[Child | Group, ...]:
    return tuple(children)


@attrs.frozen(kw_only=True)
class Group:
    """A node of the tree: children that start in order and stop in reverse.

    The children of a one-for-one group start in order too, but stop together.
    """

    name: str = attrs.field(validator=_check_name)
    children: Sequence[Child | Group] = attrs.field(converter=_as_tuple)
    strategy: Strategy
    intensity: Intensity = Intensity()
    restart: Restart = Restart.NEVER
    backoff: Backoff = Backoff()

    @children.validator
    def _check_children(self, attribute: object, children: Sequence[Child | Group]) -> None:
        names = [child.name for child in children]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"group {self.name!r} has more than one child named {name!r}")

    @property
    def grace(self) -> float:
        """Seconds the group needs to stop when each child uses up its grace."""
        graces = [child.grace for child in self.children]
        return sum(graces) if self.strategy is Strategy.REST_FOR_ONE else max(graces, default=0.0)
