"""What is known of a node that calls the Fleet API, and of what it works on."""

from __future__ import annotations

import math

import attrs


@attrs.frozen(kw_only=True)
class Work:
    """A task, or a message, that a node was given and has not answered.

    `since` is Unix seconds.
    """

    id: str
    run_id: int
    group_id: str
    """The round, as its driver calls it."""
    kind: str
    since: float


@attrs.define
class Node:
    """A node. Times are those of Trio's clock."""

    last_heartbeat: float
    until: float = -math.inf
    """When it goes offline, by the state's rules, if nothing else happens before."""
    pinged_until: float = -math.inf
    """When it would, if its pulls did not count."""
    answered: bool = False
    """Whether its last call, pings aside, has got its answer."""
    worked: bool = False
    """Whether that call brought the answer to a task."""
    elsewhere: bool = False
    """Whether another process has heard of it since."""
    lacks_part: bool = False
    """Whether a part of the message that it was given last was refused to it."""
    works: dict[str, Work] = attrs.field(factory=dict)
    """What it was given and has not answered, by the ids of that, the oldest first."""


@attrs.frozen(kw_only=True)
class NodeView:
    """A node as operators are shown it. Times are Unix seconds."""

    node_id: int
    heard: float
    """When it was heard of last."""
    online: bool
    online_until: float
    """If nothing else happens before."""
    work: Work | None
    """What it was given first of what it has not answered."""
    works: int
    """How much that is in all."""
