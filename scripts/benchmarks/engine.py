"""How many tasks a second simulated nodes do, and what runs them could do by itself."""

from __future__ import annotations

from importlib.util import find_spec

from benchmarks.comparison import Bench, Figures, NotMeasuredError
from benchmarks.processes import load
from benchmarks.table import CALLS_PER_SECOND, TASKS_PER_SECOND, Row, at_least


async def engine(bench: Bench) -> list[Row]:
    """Trivial tasks a second through the whole simulation, in worker processes."""
    return await _engine(bench, "process", "trio-parallel", 1500)


async def engine_on_ray(bench: Bench) -> list[Row]:
    """Trivial tasks a second through the whole simulation, on Ray."""
    if find_spec("ray") is None:
        raise NotMeasuredError("Ray is not installed (an extra of this package: vce)")
    return await _engine(bench, "ray", "Ray's actors", 1000)


async def _engine(bench: Bench, backend: str, workers: str, target: float) -> list[Row]:
    async def measure() -> Figures:
        seconds = 0.5 if bench.quick else 5
        return {
            "bare": (await load("bare_workers", backend, seconds))["rate"],
            "engine": (await load("engine", backend, seconds))["rate"],
        }

    measured = await bench.measure_ours(measure)
    what = f"trivial tasks of simulated nodes, 2 workers, {backend}"
    reach = at_least(target, TASKS_PER_SECOND)
    return [
        measured.row("engine", what, TASKS_PER_SECOND, reach),
        measured.row("bare", f"{workers} alone, 2 workers, a trivial function", CALLS_PER_SECOND),
    ]
