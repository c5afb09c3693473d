"""How many pushes share a commit when many push at once."""

from __future__ import annotations

from benchmarks.comparison import Bench, Figures
from benchmarks.processes import load
from benchmarks.table import CALLS_PER_SECOND, Row, Unit

_COMMITS_PER_SECOND = Unit("commits/s", more_is_better=True)
_PUSHES = Unit("pushes", more_is_better=True)


async def commits(bench: Bench) -> list[Row]:
    """Pushes and commits a second, and pushes a commit, without a transport."""

    async def measure() -> Figures:
        file = bench.folder / "commits.db"
        found = await load("commits", file, 1 if bench.quick else 3)
        for each in bench.folder.glob("commits.db*"):
            each.unlink()
        return {
            f"{pushers} {name}": figure
            for pushers, figures in found.items()
            for name, figure in figures.items()
        }

    measured = await bench.measure_ours(measure)
    rows = []
    for pushers in (1, 16, 256):
        what = f"the state alone, SQLite, {pushers} at once"
        rows += [
            measured.row(f"{pushers} pushes", f"{what}: pushes", CALLS_PER_SECOND),
            measured.row(f"{pushers} commits", f"{what}: commits", _COMMITS_PER_SECOND),
            measured.row(f"{pushers} each", f"{what}: pushes in a commit", _PUSHES),
        ]
    return rows
