"""What is in a store, counted."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs


class TaskState(enum.StrEnum):
    """How far a TaskIns has come, as an operator sees it; see `rules.task_state`."""

    QUEUED = "queued"
    UNDER_WAY = "under way"
    HANDED_OVER = "handed over"
    ANSWERED = "answered"
    OUT_OF_TIME = "out of time"


@attrs.frozen
class Counted:
    """How many tasks are in one state, and for how many seconds the first of them is stored."""

    count: int = 0
    oldest: float = 0.0


@attrs.frozen
class Contents:
    """A number of contents and their bytes."""

    count: int
    size: int


@attrs.frozen(kw_only=True)
class Census:
    """What is in a store. `tasks` has every state."""

    nodes: int
    nodes_online: int
    runs: int
    tasks: Mapping[TaskState, Counted]
    payloads: Contents
    """Equal ones once, where the store keeps them once: in memory all payloads, in a file those of
    TaskIns above 8 KiB; it keeps the others with their tasks."""
    shared_bytes: int
    """What the payloads would take besides, were equal ones not kept once."""
    stored_bytes: int
    """What counts against `StateLimits.stored_size`."""
