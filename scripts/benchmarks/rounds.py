"""Whole runs: unmodified Flower clients and server-app, and how long they take."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import AsyncExitStack

from benchmarks.comparison import Bench, Figures, NotMeasuredError
from benchmarks.processes import ROOT, FailedError, Side, load, output, running
from benchmarks.table import SECONDS, Row, at_most

PROGRAMS = ROOT / "tests" / "interop" / "programs"


async def rounds(bench: Bench) -> list[Row]:
    """3 rounds with 2 clients, the state in memory."""

    async def measure(side: Side) -> Figures:
        return {"seconds": await _run(bench, side, (), clients=2, rounds=3)}

    compared = await bench.compare(measure, times=3)
    return [compared.row("seconds", "3 rounds, 2 clients of 1.9", SECONDS, at_most(0.12, SECONDS))]


async def rounds_on_sqlite(bench: Bench) -> list[Row]:
    """10 rounds with 4 clients, the state in SQLite."""

    async def measure(side: Side) -> Figures:
        database = bench.database(side)
        return {"seconds": await _run(bench, side, database, clients=4, rounds=10)}

    await bench.require(*bench.database(bench.ours))
    compared = await bench.compare(measure, times=2)
    what = "10 rounds, 4 clients of 1.9, SQLite"
    return [compared.row("seconds", what, SECONDS, at_most(1, SECONDS))]


async def _run(
    bench: Bench, side: Side, options: tuple[str, ...], *, clients: int, rounds: int
) -> float:
    if bench.peer is None:
        raise NotMeasuredError("it needs Flower's clients")
    client = (bench.peer, PROGRAMS / "adder.py")
    async with bench.superlink(side, *options) as link, AsyncExitStack() as processes:
        for _ in range(clients):
            command = (*client, link.fleet, "grpc-rere")
            quietly = running(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            await processes.enter_async_context(quietly)
        await load("nodes", link.driver, clients)
        report = await server_app(bench, link.driver, clients=clients, rounds=rounds)
    return reported_seconds(report, rounds)


def reported_seconds(report: str, rounds: int) -> float:
    """Give what a run of `averager` took by its own account.

    Raises FailedError when not every round went well.
    """
    if report.count('"failures": 0}') != rounds:
        raise FailedError(f"not every round went well:\n{report}")
    finished = re.search(r"Run finished \d+ round\(s\) in ([0-9.]+)s", report)
    if finished is None:
        raise FailedError(f"the server-app did not finish:\n{report}")
    return float(finished[1])


async def server_app(bench: Bench, driver: str, *, clients: int, rounds: int) -> str:
    """Run `averager` under Flower's launcher of server-apps; give what it writes."""
    assert bench.peer is not None
    launcher = bench.peer.with_name("flower-server-app")
    options = ("--dir", PROGRAMS, "--insecure", "--superlink", driver)
    return await output(
        (launcher, "averager:app", *options),
        seconds=300,
        stderr=subprocess.STDOUT,
        environment={**os.environ, "CLIENTS": str(clients), "ROUNDS": str(rounds)},
    )
