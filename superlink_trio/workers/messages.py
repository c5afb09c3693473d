"""What the parent and a worker tell each other, as frames over their socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from superlink_trio.admin import Topic
from superlink_trio.config import Address, Apis, SuperLinkConfig
from superlink_trio.processes.handover import SessionLeader
from superlink_trio.supervision import EventKind


@attrs.frozen(kw_only=True)
class LogSettings:
    """How a worker's log is rendered, and the descriptor of the pipe that takes it."""

    level: str
    format: Literal["text", "json"]
    coloured: bool
    pipe: int


@attrs.frozen(kw_only=True)
class Start:
    """The first message to a worker: what it is to serve."""

    number: int
    apis: Apis
    config: SuperLinkConfig
    sockets: Mapping[str, Sequence[int]]
    """Descriptors of what listens already, by the options that say their addresses."""
    log: LogSettings
    runs: Sequence[SessionLeader]
    """The processes of runs that a worker had started which was killed."""
    cookies: bytes = attrs.field(repr=False)
    """The secret with which all workers make nodes' cookies."""


@attrs.frozen
class Reload:
    """Take of this config what may change, and read keys and certificates again."""

    config: SuperLinkConfig
    log_level: str


@attrs.frozen
class Ping:
    """Say that you are there."""


@attrs.frozen
class Stop:
    """Stop gracefully. That the parent has ended means the same."""


@attrs.frozen
class News:
    """What happened at one worker, and the others have to know; by the names of `Worker.share`."""

    told: Mapping[str, Any]


@attrs.frozen
class Runs:
    """The processes of runs that a worker has started, or has taken over."""

    processes: Sequence[SessionLeader]


Wish: TypeAlias = Topic | Reload | Ping | Stop | News


@attrs.frozen
class Request:
    """Something that a worker is to do, or to tell. Its reply, if it has one, has the same id."""

    id: int
    wish: Wish


@attrs.frozen
class Reply:
    """What a worker tells, or that it has done what was wished."""

    id: int
    value: object = None


@attrs.frozen
class Ready:
    """Everything listens: its addresses, by the paths in the worker's tree."""

    addresses: Mapping[str, Address]


@attrs.frozen(kw_only=True)
class Happened:
    """A step of the worker's tree; see `supervision.Event`."""

    kind: EventKind
    path: str
    why: str
    """FAILED: in words."""
    delay: float | None
