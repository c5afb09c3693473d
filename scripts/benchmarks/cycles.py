"""How long a task takes there and back, with more and more tasks queued for other nodes."""

from __future__ import annotations

from benchmarks.comparison import Bench, Figures
from benchmarks.processes import Side, load
from benchmarks.table import MILLISECONDS, TIMES, Row, at_most

_QUEUED = (0, 1_000, 10_000, 50_000)


async def cycles(bench: Bench) -> list[Row]:
    """Push and pull a task, push and pull its result."""

    async def measure(side: Side) -> Figures:
        async with bench.superlink(side) as link:
            number = 20 if bench.quick else 100
            medians = await load("cycles", link.driver, link.fleet, number, *_QUEUED)
        first, *_, last = medians.values()
        return {**medians, "growth": last / first}

    compared = await bench.compare(measure, times=3)
    rows = [
        compared.row(str(queued), f"a task's way, {queued:,} queued for others", MILLISECONDS)
        for queued in _QUEUED
    ]
    growth = "a task's way, growth from none queued to 50,000"
    return [*rows, compared.row("growth", growth, TIMES, at_most(1.3, TIMES))]
