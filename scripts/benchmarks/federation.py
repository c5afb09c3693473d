"""`start_server`, ours and Flower's: rounds with a larger model, and how long it takes to stop."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from benchmarks.comparison import Bench, Figures, NotMeasuredError
from benchmarks.processes import (
    FailedError,
    Server,
    Side,
    free_address,
    listens,
    load_command,
    report,
    running,
    says,
)
from benchmarks.rounds import PROGRAMS
from benchmarks.table import MEGABYTES, SECONDS, Row, at_most, times_better

_SCRIPT = Path(__file__).parent / "loads" / "round_loop.py"
_MEGABYTES = 10
_IDLE = 100


async def federation(bench: Bench) -> list[Row]:
    """Rounds of federated averaging by `start_server`, with unmodified clients."""
    clients, rounds = (4, 2) if bench.quick else (20, 10)
    peer = bench.peer
    if peer is None:
        raise NotMeasuredError("it needs Flower's clients")

    async def measure(side: Side) -> Figures:
        python = peer if side is bench.reference else Path(sys.executable)
        async with (
            _round_loop(bench, python, side.name, clients, rounds) as (server, address, _),
            AsyncExitStack() as processes,
        ):
            for _ in range(clients):
                client = (peer, PROGRAMS / "adder.py", address, "grpc-bidi")
                quietly = running(client, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                await processes.enter_async_context(quietly)
            with trio.fail_after(600):
                figures = await report(server.process)
        if not math.isclose(figures.pop("loss"), rounds, rel_tol=1e-4):
            raise FailedError(f"the model of {side.name} is not the one that the rounds make")
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
        # One more than there are, so that nothing begins.
        loop = _round_loop(bench, Path(sys.executable), bench.ours.name, _IDLE + 1, 1)
        async with (
            loop as (server, address, log),
            running(load_command("joined", address, _IDLE), stdout=subprocess.PIPE) as clients,
        ):
            await report(clients)
            # The clients have sent their calls; the server says who has joined.
            await says(log, f": {_IDLE} connected", server.process)
            await server.quiet()
            seconds = await server.terminate(signal.SIGINT)
            dismissed = (await report(clients))["dismissed"]
        if dismissed != _IDLE:
            raise FailedError(f"{dismissed} of {_IDLE} clients were told to disconnect")
        return {"seconds": seconds}

    measured = await bench.measure_ours(measure)
    what = f"start_server: SIGINT to exit, {_IDLE} clients that wait, all told to disconnect"
    return [measured.row("seconds", what, SECONDS, at_most(1, SECONDS))]


@asynccontextmanager
async def _round_loop(
    bench: Bench, python: Path, name: str, clients: int, rounds: int
) -> AsyncIterator[tuple[Server, str, Path]]:
    address, log = free_address(), bench.folder / f"round-loop-{name}.log"
    numbers = map(str, (clients, rounds, _MEGABYTES))
    with log.open("wb") as output:
        async with running(
            (python, _SCRIPT, name, address, *numbers),
            stdout=subprocess.PIPE,
            stderr=output.fileno(),
        ) as process:
            await listens(address, process, log)
            yield Server(process), address, log
