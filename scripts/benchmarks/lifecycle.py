"""How long it takes to start and to stop."""

from __future__ import annotations

from benchmarks.comparison import Bench, Figures
from benchmarks.parked import parked_nodes
from benchmarks.processes import FailedError, Side
from benchmarks.table import SECONDS, Row, at_most

_HELD = 1_000


async def start(bench: Bench) -> list[Row]:
    """From the start of the process until both ports accept connections."""

    async def measure(side: Side) -> Figures:
        async with bench.superlink(side) as link:
            return {"seconds": link.seconds_to_listen}

    compared = await bench.compare(measure, times=7)
    return [compared.row("seconds", "start to listening", SECONDS, at_most(0.4, SECONDS))]


async def stop(bench: Bench) -> list[Row]:
    """From SIGTERM to the end of the process, with nothing to do and with held calls."""

    async def measure(side: Side) -> Figures:
        async with bench.superlink(side) as link:
            await link.quiet()
            return {"seconds": await link.terminate()}

    async def measure_held() -> Figures:
        async with bench.superlink(bench.ours) as link, parked_nodes(link, _HELD) as nodes:
            seconds = await link.terminate()
            answered = await nodes.answered()
        if answered.answered_ok != _HELD:
            raise FailedError(f"{answered.answered_ok} of {_HELD} held calls were answered")
        return {"seconds": seconds}

    idle = await bench.compare(measure, times=5)
    held = await bench.measure_ours(measure_held)
    what = f"SIGTERM to exit, {_HELD:,} held calls, all answered OK and empty"
    return [
        idle.row("seconds", "SIGTERM to exit, idle", SECONDS),
        held.row("seconds", what, SECONDS, at_most(1, SECONDS)),
    ]
