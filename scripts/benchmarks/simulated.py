"""Simulated nodes: whole runs beside Flower's simulation, many at rest; and the state alone."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import attrs
from peering.processes import OURS, ROOT, output

from benchmarks.comparison import (
    Bench,
    Comparison,
    Figures,
    NotMeasured,
    Side,
    load,
    tell,
    two_workers,
)
from benchmarks.comparison import simulation as simulating
from benchmarks.rounds import PROGRAMS, reported_seconds, server_app
from benchmarks.table import (
    CALLS_PER_SECOND,
    MEGABYTES,
    PERCENT,
    SECONDS,
    TASKS_PER_SECOND,
    Row,
    Unit,
    at_least,
    at_most,
)

_WEIGHER = ("benchmarks.loads.weigher:app", ROOT / "scripts")
_BACKENDS = ("process", "ray")
_IDLE = 10_000
_MEGABYTES = 64
_COMMITS_PER_SECOND = Unit("commits/s", more_is_better=True)
_PUSHES = Unit("pushes", more_is_better=True)


async def simulation(bench: Bench) -> list[Row]:
    """Rounds of simulated nodes that run an app of Flower's, under its server-app."""
    nodes, rounds = (20, 2) if bench.quick else (100, 3)
    beside = await bench.environment(beside=True)
    flower = await bench.environment(simulation=True)

    async def measure(side: Side) -> Figures:
        figures: dict[str, float] = {}
        for backend in _BACKENDS:
            start = time.monotonic()
            async with simulating(
                side, "adder:app", PROGRAMS, nodes=nodes, backend=backend
            ) as link:
                report = await server_app(bench, link.driver, clients=nodes, rounds=rounds)
                figures[f"{backend} whole"] = time.monotonic() - start
            figures[f"{backend} rounds"] = reported_seconds(report, rounds)
        return figures

    ours = Side(bench.ours.name, (beside, *OURS[1:]))
    compared = attrs.evolve(
        await attrs.evolve(bench, ours=ours, reference=None).compare(measure, times=3),
        # Once: it takes two minutes.
        reference=await _flower_simulation(flower, nodes, rounds),
    )
    rows = []
    for backend in _BACKENDS:
        what = f"{rounds} rounds, {nodes} simulated nodes of 1.9, 2 workers, {backend}"
        whole = f"{what}: from the start to the end"
        rows += [
            compared.row(f"{backend} whole", whole, SECONDS, at_most(6, SECONDS)),
            compared.row(f"{backend} rounds", f"{what}: the rounds alone", SECONDS),
        ]
    return rows


async def _flower_simulation(
    python: Path, nodes: int, rounds: int
) -> Mapping[str, Sequence[float]]:
    """Run Flower's simulation, which knows Ray only: it stands beside both backends of ours."""
    apps = ("--server-app", "averager:app", "--client-app", "adder:app", "--app-dir", PROGRAMS)
    start = time.monotonic()
    report = await output(
        *(python.with_name("flower-simulation"), *apps, "--num-supernodes", str(nodes)),
        *("--backend-config", json.dumps(two_workers("process"))),
        seconds=600,
        stderr=subprocess.STDOUT,
        CLIENTS=str(nodes),
        ROUNDS=str(rounds),
    )
    figures = {"whole": time.monotonic() - start, "rounds": reported_seconds(report, rounds)}
    tell("reference", figures)
    return {
        f"{backend} {name}": [seconds] for backend in _BACKENDS for name, seconds in figures.items()
    }


async def simulation_nodes(bench: Bench) -> list[Row]:
    """What many simulated nodes cost at rest, and a large model for all of them."""
    receivers = 10 if bench.quick else 100

    async def measure() -> Figures:
        async with simulating(bench.ours, *_WEIGHER, nodes=_IDLE, backend="process") as link:
            await link.program.quiet()
            figures = {
                "memory": link.program.resident() / 1e6,
                "with workers": link.program.resident_with_children() / 1e6,
                "idle": await link.program.idle_cpu(3 if bench.quick else 15),
            }
        async with simulating(bench.ours, *_WEIGHER, nodes=receivers, backend="process") as link:
            before = link.program.resident()
            await load("messages.model_to_simulated", link.driver, _MEGABYTES, receivers)
            figures["peak"] = (link.program.peak() - before) / 1e6
        return figures

    measured = await bench.measure_ours(measure)
    what = f"{_IDLE:,} simulated nodes at rest"
    model = f"{_MEGABYTES} MB model to {receivers} simulated nodes: peak memory"
    return [
        measured.row("memory", f"{what}: memory", MEGABYTES, at_most(200, MEGABYTES)),
        measured.row("with workers", f"{what}: memory, with 2 workers", MEGABYTES),
        measured.row("idle", f"{what}: processor time", PERCENT),
        measured.row("peak", model, MEGABYTES, at_most(300, MEGABYTES)),
    ]


async def engine(bench: Bench) -> list[Row]:
    """Trivial tasks a second through the whole simulation, in worker processes."""

    async def measure() -> Figures:
        return {"engine": (await load("states.simulated", "process", _seconds(bench)))["rate"]}

    return [_tasks_per_second(await bench.measure_ours(measure), "process", 1500)]


async def engine_ray(bench: Bench) -> list[Row]:
    """Trivial tasks a second through the whole simulation, on Ray."""
    if find_spec("ray") is None:
        raise NotMeasured("Ray is not installed (an extra of this package: vce)")

    async def measure() -> Figures:
        return {
            "bare": (await load("bare_actors.rate", _seconds(bench)))["rate"],
            "engine": (await load("states.simulated", "ray", _seconds(bench)))["rate"],
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


async def commits(bench: Bench) -> list[Row]:
    """Pushes and commits a second, and pushes a commit, without a transport."""

    async def measure() -> Figures:
        file = bench.folder / "commits.db"
        found = await load("states.commits", str(file), 1 if bench.quick else 3)
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
