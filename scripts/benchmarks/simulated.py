"""Simulated nodes: whole runs beside Flower's simulation, and many at rest."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from peering.client import Client, over_grpc
from peering.messages import task_ins
from peering.processes import OURS, ROOT, SuperLink, free_address, output, running

from benchmarks.comparison import Bench, NotMeasured, Side, expect, group, in_thread, two_workers
from benchmarks.rounds import PROGRAMS, reported_seconds, server_app
from benchmarks.table import MEGABYTES, PERCENT, SECONDS, Figure, at_most
from superlink_trio.clientapp import RecordSet, decode, encode

_WEIGHER = ("benchmarks.weigher:app", ROOT / "scripts")
_BACKENDS = ("process", "ray")
_IDLE = 10_000
_MEGABYTES = 64


# Flower's once: it takes two minutes.
@group(times=3, reference=1)
async def simulation(bench: Bench, side: Side) -> list[Figure]:
    """Rounds of simulated nodes that run an app of Flower's, under its server-app."""
    nodes, rounds = (20, 2) if bench.quick else (100, 3)
    beside = await bench.environment(beside=True)
    flower = await bench.environment(simulation=True)
    figures: list[Figure] = []
    for backend in _BACKENDS:
        if side is bench.ours:
            start = time.monotonic()
            ours = Side(side.name, (beside, *OURS[1:]))
            async with _simulating(ours, "adder:app", PROGRAMS, nodes, backend) as link:
                report = await server_app(bench, link.driver, clients=nodes, rounds=rounds)
                whole = time.monotonic() - start
        elif not figures:
            # Flower's knows Ray only: it stands beside both backends of ours.
            whole, report = await _flower_simulation(flower, nodes, rounds)
        what = f"{rounds} rounds, {nodes} simulated nodes of 1.9, 2 workers, {backend}"
        seconds = reported_seconds(report, rounds)
        figures += [
            Figure(f"{what}: from the start to the end", whole, SECONDS, at_most(6, SECONDS)),
            Figure(f"{what}: the rounds alone", seconds, SECONDS),
        ]
    return figures


async def _flower_simulation(python: Path, nodes: int, rounds: int) -> tuple[float, str]:
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
    return time.monotonic() - start, report


@group(times=1, reference=0)
async def simulation_nodes(bench: Bench, side: Side) -> list[Figure]:
    """What many simulated nodes cost at rest, and a large model for all of them."""
    receivers = 10 if bench.quick else 100
    async with _simulating(side, *_WEIGHER, _IDLE, "process") as link:
        await link.program.quiet()
        memory = link.program.resident() / 1e6
        with_workers = link.program.resident_with_children() / 1e6
        idle = await link.program.idle_cpu(3 if bench.quick else 15)
    async with _simulating(side, *_WEIGHER, receivers, "process") as link:
        before = link.program.resident()
        await in_thread(_send_model, link.driver, receivers)
        peak = (link.program.peak() - before) / 1e6
    what = f"{_IDLE:,} simulated nodes at rest"
    model = f"{_MEGABYTES} MB model to {receivers} simulated nodes: peak memory"
    return [
        Figure(f"{what}: memory", memory, MEGABYTES, at_most(200, MEGABYTES)),
        Figure(f"{what}: memory, with 2 workers", with_workers, MEGABYTES),
        Figure(f"{what}: processor time", idle, PERCENT),
        Figure(model, peak, MEGABYTES, at_most(300, MEGABYTES)),
    ]


def _send_model(address: str, receivers: int) -> None:
    """Send a model to simulated nodes that weigh it. Raises NotMeasured when one errs."""
    driver, size = Client(over_grpc(address, "Driver")), _MEGABYTES * 10**6
    run_id = driver.create_run()
    content = encode(RecordSet({"model": {"weights": np.zeros(size, np.uint8)}}))
    waiting = set[str]()
    for me in driver.nodes(run_id):
        waiting.update(driver.push_tasks([task_ins(run_id, me, content)]))
    expect(len(waiting), receivers, "nodes are online")
    while waiting:
        for answer in driver.pull_results(waiting):
            if decode(answer.task.recordset).metrics["arrays"]["bytes"] != size:
                raise NotMeasured("a node got something else than the model")
            waiting.difference_update(answer.task.ancestry)


@asynccontextmanager
async def _simulating(
    side: Side, app: str, folder: Path, nodes: int, backend: str
) -> AsyncIterator[SuperLink]:
    """Run a SuperLink whose nodes are simulated, by two workers, for as long as the block.

    The nodes are online, and the workers have loaded the app, when the block begins.
    """
    driver = free_address()
    apps = ("--client-app", app, "--app-dir", folder, "--num-supernodes", str(nodes))
    workers = ("--backend", backend, "--backend-config", json.dumps(two_workers(backend)))
    command = (*side.command, "--insecure", "--vce", "--driver-api-address", driver)
    async with running(side.name, *command, *apps, *workers) as program:
        await program.line("Simulating")
        yield SuperLink(program, driver, "")
        # Killed, it would leave its workers to notice.
        await program.terminate()
