"""Nodes that wait for work: each its own connection with one held call."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from benchmarks.comparison import Bench, Figures, NotMeasuredError
from benchmarks.processes import FailedError, SuperLink, load_command, report, running
from benchmarks.table import KILOBYTES, PERCENT, SECONDS, Row, at_most

_NODES = 10_000
# Files that a process of either end has open besides its connections, with room to spare.
_OTHER_FILES = 200
# Long enough to park everybody and to watch; no hold may end of itself meanwhile.
_HOLD = ("--hold", "300")
# 20 s after a connection has come gRPC has to put a timer away, once.
_SETTLING = 25


@attrs.frozen
class Answered:
    """How many held calls got an answer that is OK and empty, and when the last one came."""

    answered_ok: int
    last: float
    """On the clock that `time.monotonic` shows, which all processes of a machine share."""


@attrs.frozen
class ParkedNodes:
    """Nodes whose calls are being held."""

    _process: trio.Process

    async def answered(self) -> Answered:
        """Wait until every call has been answered, or has been lost."""
        return Answered(**await report(self._process))


@asynccontextmanager
async def parked_nodes(link: SuperLink, number: int) -> AsyncIterator[ParkedNodes]:
    """Park nodes at a SuperLink for as long as the block."""
    async with running(
        load_command("parked", link.fleet, number), stdout=subprocess.PIPE
    ) as process:
        parked = (await report(process))["parked"]
        if parked != number:
            raise FailedError(f"{parked} of {number} calls were held")
        await link.quiet()
        yield ParkedNodes(process)


async def parked(bench: Bench) -> list[Row]:
    """What many nodes cost while they wait, and how long it takes to let them go."""

    async def measure() -> Figures:
        async with bench.superlink(bench.ours, *_HOLD) as link:
            before = link.resident()
            async with parked_nodes(link, _NODES) as nodes:
                memory = (link.resident() - before) / _NODES
                if not bench.quick:
                    await trio.sleep(_SETTLING)
                idle = await link.idle_cpu(3 if bench.quick else 15)
                asked = time.monotonic()
                seconds = await link.terminate()
                answered = await nodes.answered()
        if answered.answered_ok != _NODES:
            raise FailedError(f"{answered.answered_ok} of {_NODES} held calls were answered")
        return {
            "memory": memory / 1e3,
            "idle": idle,
            "released": answered.last - asked,
            "stopped": seconds,
        }

    _raise_file_limit()
    measured = await bench.measure_ours(measure)
    what = f"{_NODES:,} nodes parked"
    return [
        measured.row("memory", f"{what}: memory each", KILOBYTES, at_most(45, KILOBYTES)),
        measured.row("idle", f"{what}: processor time while idle", PERCENT, at_most(1, PERCENT)),
        measured.row("released", f"{what}: SIGTERM to the last answer", SECONDS),
        measured.row("stopped", f"{what}: SIGTERM to exit", SECONDS),
    ]


def _raise_file_limit() -> None:
    """Let the processes started from here on open as many files as they will need.

    Raises NotMeasuredError where the system does not allow that.
    """
    needed = _NODES + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise NotMeasuredError(f"a process may open {hard} files here, and needs {needed}")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
