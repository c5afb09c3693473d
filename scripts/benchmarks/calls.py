"""Calls: how many a second, how long a task's way takes, how fast large ones are."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from functools import partial

import trio
from peering.processes import output

from benchmarks.comparison import Bench, Figures, NotMeasured, Side, load, superlink
from benchmarks.table import (
    CALLS_PER_SECOND,
    MEGABYTES,
    MEGABYTES_PER_SECOND,
    MILLISECONDS,
    SECONDS,
    TIMES,
    Row,
    at_least,
    at_most,
    times_better,
)

_WARM_UP = 1000
_GRPC = ("-c", "64", "-H", "content-type: application/grpc", "-H", "te: trailers")
_REST = (
    *("--h1", "-c", "32"),
    *("-H", "content-type: application/protobuf", "-H", "accept: application/protobuf"),
)
_PATHS = {"Ping": "ping", "PullTaskIns": "pull-task-ins"}

# A server that has not ended this long after SIGTERM never does.
_NEVER = 15.0

_QUEUED = (0, 1_000, 10_000, 50_000)
_MEGABYTES, _NODES = 64, 16


async def unary(bench: Bench) -> list[Row]:
    """Ping, and PullTaskIns with nothing to pull, the state in memory."""
    compared = await bench.compare(partial(_over_grpc, bench), times=5)
    pull = "PullTaskIns with nothing to pull, 64 connections, hold off"
    return [
        compared.row("Ping", "Ping, 64 connections", CALLS_PER_SECOND, times_better(1.6)),
        compared.row("PullTaskIns", pull, CALLS_PER_SECOND, times_better(1.3)),
    ]


async def unary_sqlite(bench: Bench) -> list[Row]:
    """Ping, and PullTaskIns with nothing to pull, the state in SQLite."""
    compared = await bench.compare(partial(_over_grpc, bench, sqlite=True), times=3)
    return [
        compared.row(name, f"{name}, 64 connections, SQLite", CALLS_PER_SECOND, times_better(4))
        for name in _PATHS
    ]


async def _over_grpc(bench: Bench, side: Side, *, sqlite: bool = False) -> Figures:
    options = side.database(bench.folder) if sqlite else ()
    async with superlink(side, *_hold_off(bench, side), *options) as link:
        calls, figures = await load("messages.prepared", link.fleet, str(bench.folder), False), {}
        for name, call in calls.items():
            url = f"http://{link.fleet}/flwr.proto.Fleet/{name}"
            await _h2load(*_GRPC, url, body=call["body"], number=_WARM_UP)
            number = _number(bench)
            rate, report = await _h2load(*_GRPC, url, body=call["body"], number=number)
            # h2load takes every answer with an HTTP status of 200 for a success, and a gRPC error
            # has one too, but no message: as many bytes came as good answers hold only if all are
            # good. Only those count: the reference's SQLite answers a few of many with an error.
            good = int(_find(r"\((\d+)\) data", report)) / (number * call["answer_bytes"])
            if not (1 if side is bench.ours else 0.9) <= good <= 1:
                raise NotMeasured(f"not every call of {name} was answered well:\n{report}")
            figures[name] = good * rate
    return figures


async def rest(bench: Bench) -> list[Row]:
    """Ping, and PullTaskIns with nothing to pull, over HTTP/1.1; from SIGTERM to the exit."""

    async def measure(side: Side) -> Figures:
        figures: dict[str, float] = {"stop": math.inf}
        async with superlink(side, *_hold_off(bench, side), fleet_api="rest") as link:
            calls = await load("messages.prepared", link.fleet, str(bench.folder), True)
            for name, path in _PATHS.items():
                url, body = f"http://{link.fleet}/api/v0/fleet/{path}", calls[name]["body"]
                await _h2load(*_REST, url, body=body, number=_WARM_UP)
                figures[name], _ = await _h2load(*_REST, url, body=body, number=_number(bench))
            await link.program.quiet()
            with trio.move_on_after(_NEVER):
                figures["stop"] = await link.program.terminate()
        return figures

    compared = await bench.compare(measure, times=3)
    rate = at_least(3000, CALLS_PER_SECOND)
    what = f"REST: SIGTERM to exit, idle (∞: alive after {_NEVER:.0f} s)"
    return [
        compared.row(name, f"REST: {name}, 32 connections", CALLS_PER_SECOND, rate)
        for name in _PATHS
    ] + [compared.row("stop", what, SECONDS, at_most(0.3, SECONDS))]


def _hold_off(bench: Bench, side: Side) -> tuple[str, ...]:
    if shutil.which("h2load") is None:
        raise NotMeasured("h2load is not installed (Debian has it in nghttp2-client)")
    return ("--hold", "0") if side is bench.ours else ()


def _number(bench: Bench) -> int:
    return 3000 if bench.quick else 15_000


async def _h2load(*options: str, body: str, number: int) -> tuple[float, str]:
    """Make so many calls; give how many a second, and the whole report.

    Source: https://nghttp2.org/documentation/h2load.1.html
    """
    command = ("h2load", "-d", body, "-n", str(number), *options)
    report = await output(*command, seconds=300, stderr=subprocess.STDOUT)
    if f" {number} succeeded" not in report:
        raise NotMeasured(f"not every call was answered with 200:\n{report}")
    return float(_find(r", ([0-9.]+) req/s", report)), report


def _find(pattern: str, report: str) -> str:
    found = re.search(pattern, report)
    if found is None:
        raise NotMeasured(f"h2load wrote something else than expected:\n{report}")
    return found[1]


async def cycles(bench: Bench) -> list[Row]:
    """Push and pull a task, push and pull its result, past a queue that grows."""

    async def measure(side: Side) -> Figures:
        async with superlink(side) as link:
            number = 20 if bench.quick else 100
            medians = await load("messages.ways", link.driver, link.fleet, number, _QUEUED)
        first, *_, last = medians.values()
        return {**medians, "growth": last / first}

    compared = await bench.compare(measure, times=3)
    rows = [
        compared.row(str(queued), f"a task's way, {queued:,} queued for others", MILLISECONDS)
        for queued in _QUEUED
    ]
    growth = "a task's way, growth from none queued to 50,000"
    return [*rows, compared.row("growth", growth, TIMES, at_most(1.3, TIMES))]


async def models(bench: Bench) -> list[Row]:
    """Push one model to every node, one after the other, then let every node pull it."""

    async def measure(side: Side) -> Figures:
        async with superlink(side) as link:
            before = link.program.resident()
            speeds = await load("messages.models", link.driver, link.fleet, _MEGABYTES, _NODES)
            return {**speeds, "peak": (link.program.peak() - before) / 1e6}

    compared = await bench.compare(measure, times=3)
    what = f"{_MEGABYTES} MB model to {_NODES} nodes"
    return [
        compared.row("peak", f"{what}: peak memory", MEGABYTES, at_most(420, MEGABYTES)),
        compared.row("push", f"{what}: push", MEGABYTES_PER_SECOND, times_better(3)),
        compared.row("pull", f"{what}: pull", MEGABYTES_PER_SECOND, times_better(2)),
    ]
