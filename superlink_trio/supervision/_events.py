"""What a supervision tree tells: one event for every step of every child and group."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import attrs


class EventKind(enum.Enum):
    """The step a child or group has just made; also the state it is in until the next one."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    RESTARTING = "restarting"
    """It waits out its backoff."""
    STOPPING = "stopping"
    STOPPED = "stopped"
    """It ended by returning: as it was asked to, or by itself."""
    CANCELLED = "cancelled"
    """It ended by being cancelled."""


@attrs.frozen(kw_only=True)
class Event:
    """One step of one child or group."""

    kind: EventKind
    path: str
    """The names from the root down, `superlink/apis/fleet` for example."""
    time: float
    """When, on Trio's clock (`trio.current_time()`)."""
    cause: BaseException | None = None
    """FAILED: what was raised."""
    value: Any = None
    """READY: what the service gave to `task_status.started()`."""
    delay: float | None = None
    """RESTARTING: seconds until the next start."""


TRANSITIONS: Mapping[EventKind | None, frozenset[EventKind]] = {
    None: frozenset({EventKind.STARTING}),
    EventKind.STARTING: frozenset(
        {EventKind.READY, EventKind.FAILED, EventKind.STOPPING, EventKind.CANCELLED}
    ),
    EventKind.READY: frozenset(
        {EventKind.FAILED, EventKind.STOPPING, EventKind.STOPPED, EventKind.CANCELLED}
    ),
    EventKind.FAILED: frozenset({EventKind.RESTARTING, EventKind.STARTING}),
    EventKind.RESTARTING: frozenset({EventKind.STARTING, EventKind.STOPPED, EventKind.CANCELLED}),
    EventKind.STOPPING: frozenset({EventKind.STOPPED, EventKind.CANCELLED, EventKind.FAILED}),
    EventKind.STOPPED: frozenset({EventKind.STARTING}),
    EventKind.CANCELLED: frozenset({EventKind.STARTING}),
}
"""Which steps may follow which. None stands for what was never started.

What has ended starts again when the group it is in does, or what it stands on in a rest-for-one
group. CANCELLED follows STARTING, READY or RESTARTING only where the whole of `supervise` was
cancelled without `shielded_stop`.
"""
