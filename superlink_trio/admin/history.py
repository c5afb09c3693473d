"""What has happened to the parts of the tree, as far as it is worth remembering."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import attrs

from superlink_trio.logs.wording import described, leaves
from superlink_trio.supervision import Event, EventKind

_MOST_EVENTS = 100


@attrs.define
class Part:
    """One child or group: the state it is in, since when (Unix seconds), and its restarts."""

    state: EventKind
    since: float
    restarts: int = 0


@attrs.frozen
class Happening:
    """One step of one part. `time` is Unix seconds; `words` say why, where there is a reason."""

    time: float
    path: str
    kind: EventKind
    words: str = ""


class History:
    """Every part's state, and the latest steps of all."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._now = clock
        self._parts: dict[str, Part] = {}
        self._latest: deque[Happening] = deque(maxlen=_MOST_EVENTS)
        self.began = clock()
        """Unix seconds."""

    @property
    def parts(self) -> Mapping[str, Part]:
        """The parts by their paths, in the order in which they were started first."""
        return self._parts

    @property
    def latest(self) -> Sequence[Happening]:
        """The latest steps, the oldest first."""
        return tuple(self._latest)

    def note(self, event: Event) -> None:
        """Take note of an event."""
        now = self._now()
        part = self._parts.setdefault(event.path, Part(event.kind, now))
        part.state, part.since = event.kind, now
        words = ""
        if event.kind is EventKind.FAILED:
            words = "; ".join(map(described, leaves(event.cause)))
        elif event.kind is EventKind.RESTARTING:
            part.restarts += 1
            words = f"in {event.delay:.1f} s"
        self._latest.append(Happening(now, event.path, event.kind, words))

    def forget(self, path: str) -> None:
        """Know no part below a path any more: the process that they were parts of has ended."""
        for below in [each for each in self._parts if each.startswith(f"{path}/")]:
            del self._parts[below]

    def faults(self) -> Sequence[str]:
        """Say of each part that is not as it should be how it is; nothing where all is well."""
        return [
            f"{path} is {part.state.value}"
            for path, part in self._parts.items()
            if part.state is not EventKind.READY
        ]
