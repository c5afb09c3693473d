"""How many tasks a second simulated nodes do, and what runs them could do by itself."""

from __future__ import annotations

from importlib.util import find_spec

from benchmarks.comparison import Bench, Comparison, Figures, NotMeasuredError
from benchmarks.processes import load
from benchmarks.table import CALLS_PER_SECOND, TASKS_PER_SECOND, Row, at_least


async def engine(bench: Bench) -> list[Row]:
    """Trivial tasks a second through the whole simulation, in worker processes."""

    async def measure() -> Figures:
        return {"engine": (await load("engine", "process", _seconds(bench)))["rate"]}

    return [_tasks_per_second(await bench.measure_ours(measure), "process", 1500)]


async def engine_on_ray(bench: Bench) -> list[Row]:
    """Trivial tasks a second through the whole simulation, on Ray."""
    if find_spec("ray") is None:
        raise NotMeasuredError("Ray is not installed (an extra of this package: vce)")

    async def measure() -> Figures:
        return {
            "bare": (await load("bare_actors", _seconds(bench)))["rate"],
            "engine": (await load("engine", "ray", _seconds(bench)))["rate"],
        }

    measured = await bench.measure_ours(measure)
    bare = "Ray's actors alone, 2 workers, a trivial function"
    return [
        _tasks_per_second(measured, "ray", 1000),
        measured.row("bare", bare, CALLS_PER_SECOND),
    ]


def _seconds(bench: Bench) -> float:
    return 0.5 if bench.quick else 5


def _tasks_per_second(measured: Comparison, backend: str, target: float) -> Row:
    what = f"trivial tasks of simulated nodes, 2 workers, {backend}"
    return measured.row("engine", what, TASKS_PER_SECOND, at_least(target, TASKS_PER_SECOND))
