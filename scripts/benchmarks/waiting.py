"""Starting, stopping, and nodes that wait for work: each its own connection with one held call."""

from __future__ import annotations

import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from peering.processes import Program, SuperLink

from benchmarks.comparison import Bench, Figures, NotMeasured, Side, expect, loading, superlink
from benchmarks.table import KILOBYTES, PERCENT, SECONDS, Row, at_most

_HELD = 1_000
_NODES = 10_000
# Files that a process of either end has open besides its connections, with room to spare.
_OTHER_FILES = 200
# Long enough to park everybody and to watch; no hold may end of itself meanwhile.
_HOLD = ("--hold", "300")
# 20 s after a connection has come gRPC has to put a timer away, once.
_SETTLING = 25


async def start(bench: Bench) -> list[Row]:
    """From the start of the process until both ports accept connections."""

    async def measure(side: Side) -> Figures:
        begun = time.monotonic()
        async with superlink(side):
            return {"seconds": time.monotonic() - begun}

    compared = await bench.compare(measure, times=7)
    return [compared.row("seconds", "start to listening", SECONDS, at_most(0.4, SECONDS))]


async def stop(bench: Bench) -> list[Row]:
    """From SIGTERM to the end of the process, with nothing to do and with held calls."""

    async def measure(side: Side) -> Figures:
        async with superlink(side) as link:
            await link.program.quiet()
            return {"seconds": await link.program.terminate()}

    async def measure_held() -> Figures:
        async with superlink(bench.ours) as link, _parked_nodes(link, _HELD) as nodes:
            seconds = await link.program.terminate()
            await _answered(nodes, _HELD)
        return {"seconds": seconds}

    idle = await bench.compare(measure, times=5)
    held = await bench.measure_ours(measure_held)
    what = f"SIGTERM to exit, {_HELD:,} held calls, all answered OK and empty"
    return [
        idle.row("seconds", "SIGTERM to exit, idle", SECONDS),
        held.row("seconds", what, SECONDS, at_most(1, SECONDS)),
    ]


async def parked(bench: Bench) -> list[Row]:
    """What many nodes cost while they wait, and how long it takes to let them go."""

    async def measure() -> Figures:
        async with superlink(bench.ours, *_HOLD) as link:
            before = link.program.resident()
            async with _parked_nodes(link, _NODES) as nodes:
                memory = (link.program.resident() - before) / _NODES
                if not bench.quick:
                    await trio.sleep(_SETTLING)
                idle = await link.program.idle_cpu(3 if bench.quick else 15)
                asked = time.monotonic()
                seconds = await link.program.terminate()
                last = await _answered(nodes, _NODES)
        return {"memory": memory / 1e3, "idle": idle, "released": last - asked, "stopped": seconds}

    _raise_file_limit()
    measured = await bench.measure_ours(measure)
    what = f"{_NODES:,} nodes parked"
    return [
        measured.row("memory", f"{what}: memory each", KILOBYTES, at_most(45, KILOBYTES)),
        measured.row("idle", f"{what}: processor time while idle", PERCENT, at_most(1, PERCENT)),
        measured.row("released", f"{what}: SIGTERM to the last answer", SECONDS),
        measured.row("stopped", f"{what}: SIGTERM to exit", SECONDS),
    ]


@asynccontextmanager
async def _parked_nodes(link: SuperLink, number: int) -> AsyncIterator[Program]:
    """Park nodes at a SuperLink for as long as the block."""
    async with loading("parked.nodes", link.fleet, number) as nodes:
        expect((await nodes.report("parked"))["parked"], number, "calls were held")
        await link.program.quiet()
        yield nodes


async def _answered(nodes: Program, number: int) -> float:
    """Wait until every call was answered, OK and empty; give when the last one was.

    That is on the clock that `time.monotonic` shows, which all processes of a machine share.
    """
    report = await nodes.report("answered_ok")
    expect(report["answered_ok"], number, "held calls were answered")
    return float(report["last"])


def _raise_file_limit() -> None:
    """Let the processes started from here on open as many files as they will need.

    Raises NotMeasured where the system does not allow that.
    """
    needed = _NODES + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise NotMeasured(f"a process may open {hard} files here, and needs {needed}")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
