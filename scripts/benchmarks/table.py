"""Figures, the rows that they make, and the Markdown table of those."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median, quantiles

import attrs
from peering.report import table

_HEAD = ("what", "Flower", "superlink-trio", "times better")


@attrs.frozen
class Unit:
    """What figures are counted in, and whether a larger one is the better one."""

    name: str
    more_is_better: bool = False
    whole: bool = False
    """Whether these are counted in ones."""


SECONDS = Unit("s")
MILLISECONDS = Unit("ms")
MEGABYTES = Unit("MB")
KILOBYTES = Unit("KB")
PERCENT = Unit("%")
TIMES = Unit("×")
MEGABYTES_PER_SECOND = Unit("MB/s", more_is_better=True)
TASKS_PER_SECOND = Unit("tasks/s", more_is_better=True)
MESSAGES_PER_SECOND = Unit("messages/s", more_is_better=True)
CALLS_PER_SECOND = Unit("calls/s", more_is_better=True)
COMMITS_PER_SECOND = Unit("commits/s", more_is_better=True)
PROCESSES = Unit("processes", whole=True)
PUSHES = Unit("pushes", more_is_better=True)


@attrs.frozen
class Target:
    """What must be reached. `reached` gets our median and the ratio, if there is one."""

    text: str
    reached: Callable[[float, float | None], bool | None]


def at_most(limit: float, unit: Unit) -> Target:
    """Ask for a figure of ours that is not above a limit."""
    return Target(f"≤ {limit:g} {unit.name}", lambda ours, _: ours <= limit)


def at_least(limit: float, unit: Unit) -> Target:
    """Ask for a figure of ours that is not below a limit."""
    return Target(f"≥ {limit:,g} {unit.name}", lambda ours, _: ours >= limit)


def times_better(factor: float) -> Target:
    """Ask for a ratio; without a reference it stays open."""
    return Target(f"≥ {factor:g}×", lambda _, ratio: None if ratio is None else ratio >= factor)


@attrs.frozen
class Figure:
    """What one measurement found of one thing."""

    what: str
    value: float
    unit: Unit
    target: Target | None = None


def middle_and_tail(
    what: str, seconds: Sequence[float], target: Target | None = None
) -> list[Figure]:
    """Make figures of how long many equal things took. `target` is for the median."""
    return [
        Figure(f"{what}: median", 1000 * median(seconds), MILLISECONDS, target),
        Figure(f"{what}: 99 of 100 within", 1000 * quantiles(seconds, n=100)[98], MILLISECONDS),
    ]


@attrs.frozen(kw_only=True)
class Row:
    """One thing measured. Without a reference its samples are empty."""

    what: str
    unit: Unit
    target: Target | None = None
    ours: list[float] = attrs.field(factory=list)
    reference: list[float] = attrs.field(factory=list)

    @property
    def ratio(self) -> float | None:
        """How many times better ours is: above 1 ours is the better one."""
        if not self.reference:
            return None
        ours, reference = median(self.ours), median(self.reference)
        better, worse = (ours, reference) if self.unit.more_is_better else (reference, ours)
        return better / worse if worse else None

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None where there is none, or nothing to compare with."""
        return self.target.reached(median(self.ours), self.ratio) if self.target else None

    def cells(self) -> Sequence[str]:
        """Give the row's cells in the table's order."""
        return (
            self.what,
            _samples(self.reference, self.unit),
            _samples(self.ours, self.unit),
            "–" if self.ratio is None else f"{_number(self.ratio)}×",
        )


@attrs.frozen
class Skipped:
    """Rows that could not be measured here, and why."""

    what: str
    why: str

    def cells(self) -> Sequence[str]:
        """Give the row's cells in the table's order."""
        return (self.what, "–", f"not measured: {self.why}", "–")


def markdown(rows: Iterable[Row | Skipped]) -> str:
    """Write the table."""
    return table(_HEAD, [row.cells() for row in rows])


def missed(rows: Iterable[Row | Skipped]) -> list[str]:
    """Say which rows do not reach what was meant to be reached."""
    return [
        f"{row.what}: {_samples(row.ours, row.unit)}, meant to be {row.target.text}"
        for row in rows
        if isinstance(row, Row) and row.target and row.reached is False
    ]


def _samples(samples: Sequence[float], unit: Unit) -> str:
    if not samples:
        return "–"
    write = _whole if unit.whole else _number
    text = f"{write(median(samples))} {unit.name}"
    if len(samples) == 1:
        return text
    return f"{text} ({write(min(samples))}–{write(max(samples))})"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _number(value: float) -> str:
    """Write three digits or more, as many as a measurement can bear."""
    if value == math.inf:
        return "∞"
    decimals = next((n for n, limit in enumerate((100, 10, 1)) if abs(value) >= limit), 3)
    return f"{value:,.{decimals}f}"
