"""Large messages: how fast a model gets to the nodes, and how much memory that takes."""

from __future__ import annotations

from benchmarks.comparison import Bench, Figures
from benchmarks.processes import Side, load
from benchmarks.table import MEGABYTES, MEGABYTES_PER_SECOND, Row, at_most, times_better

_MEGABYTES = 64
_NODES = 16


async def models(bench: Bench) -> list[Row]:
    """Push one model to every node, one after the other, then let every node pull it."""

    async def measure(side: Side) -> Figures:
        async with bench.superlink(side) as link:
            before = link.resident()
            speeds = await load("models", link.driver, link.fleet, _MEGABYTES, _NODES)
            return {**speeds, "peak": (link.peak() - before) / 1e6}

    compared = await bench.compare(measure, times=3)
    what = f"{_MEGABYTES} MB model to {_NODES} nodes"
    return [
        compared.row("peak", f"{what}: peak memory", MEGABYTES, at_most(420, MEGABYTES)),
        compared.row("push", f"{what}: push", MEGABYTES_PER_SECOND, times_better(3)),
        compared.row("pull", f"{what}: pull", MEGABYTES_PER_SECOND, times_better(2)),
    ]
