"""Calls a second, as h2load (https://nghttp2.org/documentation/h2load.1.html) counts them."""

from __future__ import annotations

import re
import shutil
import subprocess

from benchmarks.comparison import Bench, Figures, NotMeasuredError
from benchmarks.processes import FailedError, Side, SuperLink, load, output
from benchmarks.table import CALLS_PER_SECOND, Row, times_better

_CONNECTIONS = 64
_WARM_UP = 1000
_HEADERS = ("-H", "content-type: application/grpc", "-H", "te: trailers")


async def unary(bench: Bench) -> list[Row]:
    """Ping, and PullTaskIns with nothing to pull, the state in memory."""

    async def measure(side: Side) -> Figures:
        return await _measure(bench, side)

    compared = await bench.compare(measure, times=5)
    return [
        compared.row("Ping", "Ping, 64 connections", CALLS_PER_SECOND, times_better(1.6)),
        compared.row(
            "PullTaskIns",
            "PullTaskIns with nothing to pull, 64 connections, hold off",
            CALLS_PER_SECOND,
            times_better(1.3),
        ),
    ]


async def unary_on_sqlite(bench: Bench) -> list[Row]:
    """Ping, and PullTaskIns with nothing to pull, the state in SQLite."""

    async def measure(side: Side) -> Figures:
        return await _measure(bench, side, *bench.database(side))

    await bench.require(*bench.database(bench.ours))
    compared = await bench.compare(measure, times=3)
    return [
        compared.row(name, f"{name}, 64 connections, SQLite", CALLS_PER_SECOND, times_better(4))
        for name in ("Ping", "PullTaskIns")
    ]


async def _measure(bench: Bench, side: Side, *options: str) -> Figures:
    if shutil.which("h2load") is None:
        raise NotMeasuredError("h2load is not installed (Debian has it in nghttp2-client)")
    hold = ("--hold", "0") if side is bench.ours else ()
    async with bench.superlink(side, *hold, *options) as link:
        calls = await load("calls", link.fleet, bench.folder)
        figures = {}
        for name, call in calls.items():
            await _calls_per_second(link, name, call, _WARM_UP, faultless=False)
            figures[name] = await _calls_per_second(
                link, name, call, 3000 if bench.quick else 15_000, faultless=side is bench.ours
            )
    return figures


async def _calls_per_second(
    link: SuperLink, name: str, call: dict[str, str | int], number: int, *, faultless: bool
) -> float:
    """Count good answers only. The reference's SQLite answers a few of many calls with an error."""
    load = ("-d", str(call["body"]), "-n", str(number), "-c", str(_CONNECTIONS))
    url = f"http://{link.fleet}/flwr.proto.Fleet/{name}"
    command = ("h2load", *load, *_HEADERS, url)
    report = await output(command, seconds=300, stderr=subprocess.STDOUT)
    # h2load takes every answer with an HTTP status of 200 for a success, and a gRPC error has
    # one too. But it has no message: as many bytes came as good answers hold only if all are good.
    received = int(find(r"\((\d+)\) data", report))
    good = received / (number * int(call["answer_bytes"]))
    if f" {number} succeeded" not in report or good < (1 if faultless else 0.9) or good > 1:
        raise FailedError(f"not every call of {name} was answered as it should be:\n{report}")
    return good * float(find(r", ([0-9.]+) req/s", report))


def find(pattern: str, report: str) -> str:
    """Give what a pattern finds in a report of h2load."""
    found = re.search(pattern, report)
    if found is None:
        raise FailedError(f"h2load wrote something else than expected:\n{report}")
    return found[1]
