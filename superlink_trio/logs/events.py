"""What the log says of a supervision tree's steps."""

from __future__ import annotations

import logging

import attrs

from superlink_trio.logs.wording import described, leaves
from superlink_trio.supervision import Event, EventKind

_log = logging.getLogger(__name__)


@attrs.define
class EventLog:
    """Logs each failure of a part that was running, once, and its restart; the rest for debugging.

    What fails at the start is left to whoever has started the tree: it is raised there.
    """

    groups: frozenset[str]
    """The paths of what only fails because something in it did."""
    _was_ready: set[str] = attrs.field(factory=set, init=False)

    def __call__(self, event: Event) -> None:
        """Log an event."""
        fields = {"part": event.path, "transition": event.kind.name.lower()}
        match event.kind:
            case EventKind.RESTARTING:
                _log.warning("%s restarts in %.1f s", event.path, event.delay, extra=fields)
            case EventKind.FAILED:
                running = event.path in self._was_ready and event.path not in self.groups
                words = "; ".join(map(described, leaves(event.cause)))
                level = logging.ERROR if running else logging.DEBUG
                _log.log(level, "%s failed: %s", event.path, words, extra=fields)
            case kind:
                if kind is EventKind.READY:
                    self._was_ready.add(event.path)
                _log.debug("%s %s", event.path, kind.name.lower(), extra=fields)
