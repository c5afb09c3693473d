"""How much the APIs are asked, and how fast they answer, over the last five minutes."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import trio

from superlink_trio.rpc.observing import CANCELLED, OK, Call

STEP = 5.0
"""Seconds that are counted together."""

STEPS = 60

# Seconds that the figures of this moment are taken from.
_RECENT = 10

# These wait for something to answer: how long they take says nothing about the server.
_WAITING = frozenset({"PullTaskIns", "PullTaskRes", "Join", "Watch"})

# Latencies are counted in classes, each a fifth wider than the one before.
_CLASSES_PER_DOUBLING = 4


@attrs.define
class Step:
    """The calls that ended in one step."""

    number: int = 0
    calls: int = 0
    faults: int = 0
    latencies: Counter[int] = attrs.field(factory=Counter)

    def __add__(self, other: Step) -> Step:
        """Add up what two processes counted in the same seconds."""
        return Step(
            calls=self.calls + other.calls,
            faults=self.faults + other.faults,
            latencies=self.latencies + other.latencies,
        )


@attrs.frozen
class Recent:
    """The calls of the last five minutes."""

    under_way: int = 0
    steps: Sequence[Step] = attrs.field(factory=lambda: [Step() for _ in range(STEPS)])
    """The last of them ended before the one that is under way."""

    @classmethod
    def of(cls, parts: Sequence[Recent]) -> Recent:
        """Put together what several processes counted. Their steps may be one apart."""
        together = cls()
        for part in parts:
            steps = zip(together.steps, part.steps, strict=True)
            together = cls(
                together.under_way + part.under_way, [one + other for one, other in steps]
            )
        return together

    def view(self) -> Mapping[str, Any]:
        """Give what is shown: rates in calls a second, latencies in ms, None where nothing came.

        `median` and `p99` leave out the calls that wait; they may be up to a fifth too high.
        """
        recent = self.steps[-int(_RECENT / STEP) :]
        return {
            "under_way": self.under_way,
            **_summary(recent),
            "step": STEP,
            "series": {
                name: [figure([step]) for step in self.steps] for name, figure in _FIGURES.items()
            },
        }


class Rates:
    """Counts calls as they begin and end. Memory does not grow with their number."""

    def __init__(self) -> None:
        self._under_way = 0
        self._steps: deque[Step] = deque(maxlen=STEPS + 1)

    def begun(self, call: Call) -> None:
        """See `CallObserver`."""
        self._under_way += 1

    def over(self, call: Call) -> None:
        """See `CallObserver`."""
        self._under_way -= 1
        number = int(call.ended // STEP)
        if not self._steps or self._steps[-1].number != number:
            self._steps.append(Step(number))
        step = self._steps[-1]
        step.calls += 1
        if call.outcome not in (OK, CANCELLED):
            step.faults += 1
        if call.method not in _WAITING:
            step.latencies[_class(call.seconds)] += 1

    def recent(self) -> Recent:
        """Give what was counted."""
        current = int(trio.current_time() // STEP)
        known = {step.number: step for step in self._steps}
        steps = [known.get(current - ago) or Step() for ago in range(STEPS, 0, -1)]
        return Recent(self._under_way, steps)


_Figure = Callable[[Sequence[Step]], float | None]


def _rate(steps: Sequence[Step]) -> float:
    return round(sum(step.calls for step in steps) / (STEP * len(steps)), 1)


def _faults(steps: Sequence[Step]) -> float:
    return round(sum(step.faults for step in steps) / (STEP * len(steps)), 1)


def _quantile(share: float) -> _Figure:
    def figure(steps: Sequence[Step]) -> float | None:
        return _at(share, (step.latencies for step in steps))

    return figure


_FIGURES: Mapping[str, _Figure] = {
    "calls": _rate,
    "faults": _faults,
    "median": _quantile(0.5),
    "p99": _quantile(0.99),
}


def _summary(steps: Sequence[Step]) -> Mapping[str, float | None]:
    return {name: figure(steps) for name, figure in _FIGURES.items()}


def _class(seconds: float) -> int:
    return math.ceil(_CLASSES_PER_DOUBLING * math.log2(max(seconds * 1000, 0.001)))


def _at(share: float, latencies: Iterable[Counter[int]]) -> float | None:
    """Give the latency in ms that this share of the calls did not exceed."""
    together: Counter[int] = Counter()
    for each in latencies:
        together.update(each)
    wanted = share * together.total()
    seen = 0
    for number, count in sorted(together.items()):
        seen += count
        if seen >= wanted:
            return float(f"{2 ** (number / _CLASSES_PER_DOUBLING):.3g}")
    return None
