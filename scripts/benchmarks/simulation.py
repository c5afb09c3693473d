"""Simulated nodes: whole runs beside Flower's simulation, many nodes at rest, a large model."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from benchmarks.comparison import Bench, Figures, tell
from benchmarks.processes import OURS, ROOT, Side, load, output, two_workers
from benchmarks.processes import simulation as simulated
from benchmarks.rounds import PROGRAMS, reported_seconds, server_app
from benchmarks.table import MEGABYTES, PERCENT, SECONDS, Row, at_most

APP = "benchmarks.loads.weigher:app"
APP_DIR = ROOT / "scripts"

_BACKENDS = ("process", "ray")
_IDLE = 10_000
_MEGABYTES = 64


async def simulation(bench: Bench) -> list[Row]:
    """Rounds of simulated nodes that run an app of Flower's, under its server-app."""
    nodes, rounds = (20, 2) if bench.quick else (100, 3)
    beside = await bench.environment(beside=True)
    flower = await bench.environment(simulation=True)

    async def measure(side: Side) -> Figures:
        figures: dict[str, float] = {}
        for backend in _BACKENDS:
            log = bench.folder / f"{backend}.log"
            start = time.monotonic()
            async with simulated(
                side, "adder:app", PROGRAMS, nodes=nodes, backend=backend, log=log
            ) as link:
                report = await server_app(bench, link.driver, clients=nodes, rounds=rounds)
                figures[f"{backend} whole"] = time.monotonic() - start
            figures[f"{backend} rounds"] = reported_seconds(report, rounds)
        return figures

    ours = Side(OURS.name, (beside, *OURS.command[1:]))
    simulations = attrs.evolve(bench, ours=ours, reference=None)
    compared = attrs.evolve(
        await simulations.compare(measure, times=3),
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
    workers = ("--backend-config", json.dumps(two_workers("process")))
    command = (python.with_name("flower-simulation"), *apps, "--num-supernodes", str(nodes))
    start = time.monotonic()
    report = await output(
        (*command, *workers),
        seconds=600,
        stderr=subprocess.STDOUT,
        environment={**os.environ, "CLIENTS": str(nodes), "ROUNDS": str(rounds)},
    )
    whole, alone = time.monotonic() - start, reported_seconds(report, rounds)
    tell("reference", {"whole": whole, "rounds": alone})
    return {
        f"{backend} {name}": [seconds]
        for backend in _BACKENDS
        for name, seconds in (("whole", whole), ("rounds", alone))
    }


async def simulation_nodes(bench: Bench) -> list[Row]:
    """What many simulated nodes cost at rest, and a large model for all of them."""
    receivers = 10 if bench.quick else 100
    log = bench.folder / "nodes.log"

    async def measure() -> Figures:
        async with simulated(
            bench.ours, APP, APP_DIR, nodes=_IDLE, backend="process", log=log
        ) as link:
            await link.quiet()
            figures = {
                "memory": link.resident() / 1e6,
                "with workers": link.resident_with_children() / 1e6,
                "idle": await link.idle_cpu(3 if bench.quick else 15),
            }
        async with simulated(
            bench.ours, APP, APP_DIR, nodes=receivers, backend="process", log=log
        ) as link:
            before = link.resident()
            await load("simulated_model", link.driver, _MEGABYTES, receivers)
            figures["peak"] = (link.peak() - before) / 1e6
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
