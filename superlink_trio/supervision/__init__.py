"""Supervision trees for Trio: services that start in order, restart, and stop in reverse.

Knows nothing of Flower. A tree is described by frozen values (`Group`, `Child`), run by
`supervise`, stopped through a `Control`, and tells an observer every step as an `Event`.
`task_tree` shows every task of the Trio run, those of others included.
"""

from __future__ import annotations

from ._control import Control, shielded_stop
from ._events import TRANSITIONS, Event, EventKind
from ._lives import TooManyRestarts
from ._spec import Backoff, Child, Group, Intensity, Restart, Service, Strategy
from ._supervise import supervise
from ._tasks import task_tree

__all__ = [
    "TRANSITIONS",
    "Backoff",
    "Child",
    "Control",
    "Event",
    "EventKind",
    "Group",
    "Intensity",
    "Restart",
    "Service",
    "Strategy",
    "TooManyRestarts",
    "shielded_stop",
    "supervise",
    "task_tree",
]
