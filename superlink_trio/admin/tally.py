"""Plain counters that calls bump on their way: what each of them costs is paid by every call."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import attrs
import trio

from superlink_trio.rpc import Call, Holds

CALL_BOUNDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    # A pull may be held for any of these: beyond the first second coarser ones would do for work,
    # but tell a hold of 10 s from one of 60 s.
    *(1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0),
)
"""Seconds."""

LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds."""

# Seconds between two looks at how late the loop is. One that stalls for longer is always seen.
_LOOK_EVERY = 0.25


class Durations:
    """How many durations there were up to each bound, in seconds, and beyond the last."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def note(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def __add__(self, other: Durations) -> Durations:
        """Add up two counts over the same bounds."""
        added = self.copy()
        added.counts = [sum(both) for both in zip(self.counts, other.counts, strict=True)]
        added.sum += other.sum
        return added

    def copy(self) -> Durations:
        """Give what does not change any more."""
        copied = Durations(self.bounds)
        copied.counts, copied.sum = list(self.counts), self.sum
        return copied


@attrs.define(eq=False)
class MethodTally:
    """The calls of one method so far. Sizes are bytes."""

    in_progress: int = 0
    received: int = 0
    sent: int = 0
    ended: dict[str, Durations] = attrs.field(factory=dict)
    """By `Call.outcome`."""
    refused: dict[str, int] = attrs.field(factory=dict)
    """By `Call.reason`."""

    def copy(self) -> MethodTally:
        """Give what does not change any more."""
        ended = {outcome: durations.copy() for outcome, durations in self.ended.items()}
        return attrs.evolve(self, ended=ended, refused=dict(self.refused))

    def __add__(self, other: MethodTally) -> MethodTally:
        """Add up what two processes have counted."""
        ended = dict(self.ended)
        for outcome, durations in other.ended.items():
            ended[outcome] = ended[outcome] + durations if outcome in ended else durations
        refused = Counter(self.refused)
        refused.update(other.refused)
        return MethodTally(
            in_progress=self.in_progress + other.in_progress,
            received=self.received + other.received,
            sent=self.sent + other.sent,
            ended=ended,
            refused=dict(refused),
        )

    def once_ended(self) -> MethodTally:
        """Give what stays true when the process has ended."""
        return attrs.evolve(self, in_progress=0)


class CallTally:
    """Counts calls, as a `CallObserver`."""

    def __init__(self) -> None:
        self._methods: dict[tuple[str, str], MethodTally] = {}
        self._holds: dict[str, Holds] = {}

    def begun(self, call: Call) -> None:
        """See `CallObserver`."""
        self._of(call).in_progress += 1
        self._holds[call.service] = call.holds

    def over(self, call: Call) -> None:
        """See `CallObserver`."""
        method = self._of(call)
        method.in_progress -= 1
        method.received += call.received
        method.sent += call.sent
        durations = method.ended.get(call.outcome)
        if durations is None:
            durations = method.ended[call.outcome] = Durations(CALL_BOUNDS)
        durations.note(call.seconds)
        if call.reason:
            method.refused[call.reason] = method.refused.get(call.reason, 0) + 1

    def held(self) -> Iterator[tuple[str, int]]:
        """Give the calls that are held now, by their service."""
        for service, holds in self._holds.items():
            yield service, len(holds)

    def methods(self) -> Iterator[tuple[tuple[str, str], MethodTally]]:
        """Give what was counted until now, by service and method."""
        for name, method in self._methods.items():
            yield name, method.copy()

    def _of(self, call: Call) -> MethodTally:
        name = call.service, call.method
        method = self._methods.get(name)
        if method is None:
            method = self._methods[name] = MethodTally()
        return method


async def measure_lag(note: Callable[[float], None]) -> NoReturn:
    """Note again and again how late Trio wakes a task, in seconds.

    That is for how long other tasks kept the loop busy without a checkpoint.
    """
    while True:
        due = trio.current_time() + _LOOK_EVERY
        await trio.sleep_until(due)
        note(max(0.0, trio.current_time() - due))
