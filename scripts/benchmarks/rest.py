"""Calls a second over REST, and how long it takes to stop."""

from __future__ import annotations

import math
import shutil
import subprocess

import trio

from benchmarks.comparison import Bench, Figures, NotMeasuredError
from benchmarks.processes import FailedError, Side, load, output
from benchmarks.table import CALLS_PER_SECOND, SECONDS, Row, at_least, at_most
from benchmarks.unary import find

_CONNECTIONS = 32
_WARM_UP = 1000
_PATHS = {"Ping": "ping", "PullTaskIns": "pull-task-ins"}
_HEADERS = ("-H", "content-type: application/protobuf", "-H", "accept: application/protobuf")

# A server that has not ended this long after SIGTERM never does.
_NEVER = 15.0


async def rest(bench: Bench) -> list[Row]:
    """Ping, and PullTaskIns with nothing to pull, over HTTP/1.1; from SIGTERM to the exit."""

    async def measure(side: Side) -> Figures:
        if shutil.which("h2load") is None:
            raise NotMeasuredError("h2load is not installed (Debian has it in nghttp2-client)")
        hold = ("--hold", "0") if side is bench.ours else ()
        async with bench.superlink(side, *hold, fleet_api="rest") as link:
            calls = await load("rest_calls", link.fleet, bench.folder)
            figures: dict[str, float] = {}
            for name, body in calls.items():
                url = f"http://{link.fleet}/api/v0/fleet/{_PATHS[name]}"
                await _calls_per_second(url, body, _WARM_UP)
                figures[name] = await _calls_per_second(url, body, 3000 if bench.quick else 15_000)
            await link.quiet()
            figures["stop"] = math.inf
            with trio.move_on_after(_NEVER):
                figures["stop"] = await link.terminate()
        return figures

    compared = await bench.compare(measure, times=3)
    rate = at_least(3000, CALLS_PER_SECOND)
    what = f"REST: SIGTERM to exit, idle (∞: alive after {_NEVER:.0f} s)"
    return [
        compared.row(name, f"REST: {name}, {_CONNECTIONS} connections", CALLS_PER_SECOND, rate)
        for name in _PATHS
    ] + [compared.row("stop", what, SECONDS, at_most(0.3, SECONDS))]


async def _calls_per_second(url: str, body: str, number: int) -> float:
    load = ("-d", body, "-n", str(number), "-c", str(_CONNECTIONS))
    command = ("h2load", "--h1", *load, *_HEADERS, url)
    report = await output(command, seconds=300, stderr=subprocess.STDOUT)
    if f" {number} succeeded" not in report:
        raise FailedError(f"not every call was answered with 200:\n{report}")
    return float(find(r", ([0-9.]+) req/s", report))
