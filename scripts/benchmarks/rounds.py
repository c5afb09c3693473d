"""Whole runs with unmodified Flower clients: on a SuperLink, and on `start_server`."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio
from peering.processes import ROOT, Program, free_address, output, running

from benchmarks.comparison import (
    Bench,
    Figures,
    NotMeasured,
    Side,
    expect,
    load,
    loading,
    superlink,
)
from benchmarks.table import MEGABYTES, SECONDS, Row, at_most, times_better

PROGRAMS = ROOT / "tests" / "interop" / "programs"

_SCRIPT = Path(__file__).parent / "loads" / "round_loop.py"
_MEGABYTES = 10
_IDLE = 100


async def rounds(bench: Bench) -> list[Row]:
    """3 rounds with 2 clients, the state in memory."""
    compared = await bench.compare(partial(_run, bench, clients=2, rounds=3), times=3)
    return [compared.row("seconds", "3 rounds, 2 clients of 1.9", SECONDS, at_most(0.12, SECONDS))]


async def rounds_sqlite(bench: Bench) -> list[Row]:
    """10 rounds with 4 clients, the state in SQLite."""
    run = partial(_run, bench, clients=4, rounds=10, sqlite=True)
    compared = await bench.compare(run, times=2)
    what = "10 rounds, 4 clients of 1.9, SQLite"
    return [compared.row("seconds", what, SECONDS, at_most(1, SECONDS))]


async def _run(
    bench: Bench, side: Side, *, clients: int, rounds: int, sqlite: bool = False
) -> Figures:
    options = side.database(bench.folder) if sqlite else ()
    async with superlink(side, *options) as link, AsyncExitStack() as processes:
        for _ in range(clients):
            client = bench.client(PROGRAMS / "adder.py", link.fleet, "grpc-rere")
            await processes.enter_async_context(client)
        await load("messages.online", link.driver, clients)
        report = await server_app(bench, link.driver, clients=clients, rounds=rounds)
    return {"seconds": reported_seconds(report, rounds)}


def reported_seconds(report: str, rounds: int) -> float:
    """Give what a run of `averager` took by its own account.

    Raises NotMeasured when not every round went well.
    """
    if report.count('"failures": 0}') != rounds:
        raise NotMeasured(f"not every round went well:\n{report}")
    finished = re.search(r"Run finished \d+ round\(s\) in ([0-9.]+)s", report)
    if finished is None:
        raise NotMeasured(f"the server-app did not finish:\n{report}")
    return float(finished[1])


async def server_app(bench: Bench, driver: str, *, clients: int, rounds: int) -> str:
    """Run `averager` under Flower's launcher of server-apps; give what it writes."""
    assert bench.peer is not None
    launcher = bench.peer.with_name("flower-server-app")
    return await output(
        *(launcher, "averager:app", "--dir", PROGRAMS, "--insecure", "--superlink", driver),
        seconds=300,
        stderr=subprocess.STDOUT,
        CLIENTS=str(clients),
        ROUNDS=str(rounds),
    )


async def federation(bench: Bench) -> list[Row]:
    """Rounds of federated averaging by `start_server`, with unmodified clients."""
    clients, rounds = (4, 2) if bench.quick else (20, 10)

    async def measure(side: Side) -> Figures:
        async with (
            _round_loop(bench, side, clients, rounds) as (server, address),
            AsyncExitStack() as processes,
        ):
            for _ in range(clients):
                client = bench.client(PROGRAMS / "adder.py", address, "grpc-bidi")
                await processes.enter_async_context(client)
            with trio.fail_after(600):
                figures = await server.report("peak")
        if not math.isclose(figures.pop("loss"), rounds, rel_tol=1e-4):
            raise NotMeasured(f"the model of {side.name} is not the one that the rounds make")
        return figures

    compared = await bench.compare(measure, times=2)
    what = f"start_server, {rounds} rounds, {clients} clients of 1.9, {_MEGABYTES} MB model"
    return [
        compared.row("peak", f"{what}: peak memory", MEGABYTES, times_better(3.33)),
        compared.row("cpu", f"{what}: processor time", SECONDS, times_better(1.67)),
        compared.row("seconds", f"{what}: the rounds", SECONDS, times_better(1)),
    ]


async def federation_stop(bench: Bench) -> list[Row]:
    """From SIGINT to the end of the process, with clients that wait."""

    async def measure() -> Figures:
        async with (
            # One more than there are, so that nothing begins.
            _round_loop(bench, bench.ours, _IDLE + 1, 1) as (server, address),
            loading("joined.clients", address, _IDLE) as clients,
        ):
            await clients.report("connected")
            # The clients have sent their calls; the server says who has joined.
            await server.line(f": {_IDLE} connected")
            await server.quiet()
            seconds = await server.terminate(signal.SIGINT)
            dismissed = (await clients.report("dismissed"))["dismissed"]
        expect(dismissed, _IDLE, "clients were told to disconnect")
        return {"seconds": seconds}

    measured = await bench.measure_ours(measure)
    what = f"start_server: SIGINT to exit, {_IDLE} clients that wait, all told to disconnect"
    return [measured.row("seconds", what, SECONDS, at_most(1, SECONDS))]


@asynccontextmanager
async def _round_loop(
    bench: Bench, side: Side, clients: int, rounds: int
) -> AsyncIterator[tuple[Program, str]]:
    python = sys.executable if side is bench.ours else bench.peer
    assert python is not None
    address, numbers = free_address(), map(str, (clients, rounds, _MEGABYTES))
    async with running("start_server", python, _SCRIPT, side.name, address, *numbers) as server:
        await server.listens(address)
        yield server, address
