"""Calls: how many a second, how long a task's way takes, how fast large ones are."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from statistics import median
from tempfile import NamedTemporaryFile
from typing import TypeVar

import trio
from peering.client import Client, fleet, over_grpc
from peering.http2 import grpc_message
from peering.messages import record_set, task_ins, task_res
from peering.processes import ANY_PORT, SuperLink, output

from benchmarks.comparison import Bench, NotMeasured, Side, gathered, group, in_thread, superlink
from benchmarks.table import (
    CALLS_PER_SECOND,
    MEGABYTES,
    MEGABYTES_PER_SECOND,
    MILLISECONDS,
    PERCENT,
    SECONDS,
    TIMES,
    Figure,
    at_least,
    at_most,
    times_better,
)
from superlink_trio.wire import superlink_pb2 as pb

WARM_UP = 1000
_GRPC = ("-H", "content-type: application/grpc", "-H", "te: trailers")
_CONNECTIONS = 64
_CALLS, _PINGS = 15_000, 6_000
_REST = (
    *("--h1", "-c", "32"),
    *("-H", "content-type: application/protobuf", "-H", "accept: application/protobuf"),
)

# A server that has not ended this long after SIGTERM never does.
_NEVER = 15.0

_QUEUED = (0, 1_000, 10_000, 50_000)
_PAYLOAD = record_set(bytes(100))
_OTHERS = 100
_PER_PUSH = 500

_MEGABYTES, _NODES = 64, 16

Answer = TypeVar("Answer")


@group(times=5)
async def unary(bench: Bench, side: Side) -> list[Figure]:
    """Ping, and PullTaskIns with nothing to pull, the state in memory."""
    ping, pull = await _over_grpc(bench, side)
    what = "PullTaskIns with nothing to pull, 64 connections, hold off"
    return [
        Figure("Ping, 64 connections", ping, CALLS_PER_SECOND, times_better(1.6)),
        Figure(what, pull, CALLS_PER_SECOND, times_better(1.3)),
    ]


@group(times=3)
async def unary_sqlite(bench: Bench, side: Side) -> list[Figure]:
    """Ping, and PullTaskIns with nothing to pull, the state in SQLite."""
    ping, pull = await _over_grpc(bench, side, *side.database(bench.folder))
    return [
        Figure("Ping, 64 connections, SQLite", ping, CALLS_PER_SECOND, times_better(4)),
        Figure("PullTaskIns, 64 connections, SQLite", pull, CALLS_PER_SECOND, times_better(4)),
    ]


@group(times=7, reference=0)
async def admin(bench: Bench, side: Side) -> list[Figure]:
    """What `--admin-address` costs: pings of two SuperLinks in turn, one with it and one without.

    Both run all the while. Each pair of loads gives a ratio, and what is lost is the median of
    these: what else the machine does falls on both. Two processes of one program differ by a few
    percent as well, each way: so each sample starts them anew.
    """
    ratios = []
    with_it = ("--admin-address", ANY_PORT)
    async with (
        superlink(side, *_hold_off(bench, side)) as bare,
        superlink(side, *_hold_off(bench, side), *with_it) as watched,
    ):
        pings = {link.fleet: (await in_thread(_calls, link, False))[0] for link in (bare, watched)}
        for number in range(4):
            rates = {}
            for link in (bare, watched) if number % 2 else (watched, bare):
                rates[link.fleet] = await _rate(bench, side, link, *pings[link.fleet])
            ratios.append(rates[watched.fleet] / rates[bare.fleet])
    lost = 100 * (1 - median(ratios))
    return [Figure("calls/s lost to --admin-address", lost, PERCENT, at_most(3, PERCENT))]


async def _over_grpc(bench: Bench, side: Side, *options: str) -> list[float]:
    async with superlink(side, *_hold_off(bench, side), *options) as link:
        return [
            await _rate(bench, side, link, *call) for call in await in_thread(_calls, link, False)
        ]


async def pings(bench: Bench, side: Side, links: Sequence[SuperLink]) -> tuple[float, float]:
    """Ping SuperLinks over 64 connections in all.

    Give how many pings a second were answered well, and how many for a second of the processor
    time of the SuperLinks: what else the machine does changes that less.
    Raises NotMeasured where h2load is not installed.
    """
    need_h2load()
    share, number, loads = _CONNECTIONS // len(links), _PINGS // len(links), []
    for link in links:
        [call] = await in_thread(_calls, link, False, "Ping")
        load = partial(_rate, bench, side, link, *call)
        loads.append(partial(load, connections=share, number=number))
    used = sum(link.program.cpu_seconds_with_children() for link in links)
    rate = sum(await gathered(*loads))
    used = sum(link.program.cpu_seconds_with_children() for link in links) - used
    return rate, len(links) * (WARM_UP + _number(bench, number)) / used


async def _rate(
    bench: Bench,
    side: Side,
    link: SuperLink,
    name: str,
    request: bytes,
    answer: bytes,
    connections: int = _CONNECTIONS,
    number: int = _CALLS,
) -> float:
    """Make a call over so many connections; give how many a second were answered well."""
    url = f"http://{link.fleet}/flwr.proto.Fleet/{name}"
    options = (*_GRPC, "-c", str(connections), url)
    body = grpc_message(request)
    rate, number, report = await h2load(bench, *options, body=body, number=number)
    # h2load takes every answer with an HTTP status of 200 for a success, and a gRPC error has one
    # too, but no message: as many bytes came as good answers hold only if all are good. Only those
    # count: the reference's SQLite answers a few of many with an error.
    good = int(_find(r"\((\d+)\) data", report)) / (number * len(grpc_message(answer)))
    if not (1 if side is bench.ours else 0.9) <= good <= 1:
        raise NotMeasured(f"not every call of {name} was answered well:\n{report}")
    return good * rate


@group(times=3)
async def rest(bench: Bench, side: Side) -> list[Figure]:
    """Ping, and PullTaskIns with nothing to pull, over HTTP/1.1; from SIGTERM to the exit."""
    rates, stopped = [], math.inf
    paths = {"Ping": "ping", "PullTaskIns": "pull-task-ins"}
    async with superlink(side, *_hold_off(bench, side), fleet_api="rest") as link:
        for name, request, _ in await in_thread(_calls, link, True):
            url = f"http://{link.fleet}/api/v0/fleet/{paths[name]}"
            rate, *_ = await h2load(bench, *_REST, url, body=request)
            what = f"REST: {name}, 32 connections"
            target = at_least(3000, CALLS_PER_SECOND)
            rates.append(Figure(what, rate, CALLS_PER_SECOND, target))
        await link.program.quiet()
        with trio.move_on_after(_NEVER):
            stopped = await link.program.terminate()
    what = f"REST: SIGTERM to exit, idle (∞: alive after {_NEVER:.0f} s)"
    return [*rates, Figure(what, stopped, SECONDS, at_most(0.3, SECONDS))]


def _hold_off(bench: Bench, side: Side) -> tuple[str, ...]:
    need_h2load()
    return ("--hold", "0") if side is bench.ours else ()


def _calls(link: SuperLink, rest: bool, *names: str) -> list[tuple[str, bytes, bytes]]:
    """Make calls of a new node once, to see an error; give their names, requests and answers.

    Without `names` all that are answered at once.
    """
    client = fleet(link.fleet, rest=rest, timeout=120)
    node = client.create_node()
    requests = {
        "Ping": pb.PingRequest(node=node, ping_interval=30).SerializeToString(),
        "PullTaskIns": pb.PullTaskInsRequest(node=node).SerializeToString(),
    }
    return [(name, requests[name], client.send(name, requests[name])) for name in names or requests]


def need_h2load() -> None:
    """Raise NotMeasured where h2load is not installed."""
    if shutil.which("h2load") is None:
        raise NotMeasured("h2load is not installed (Debian has it in nghttp2-client)")


async def h2load(
    bench: Bench, *options: str, body: bytes, number: int = _CALLS
) -> tuple[float, int, str]:
    """Make a call again and again; give how many a second, how many, and the whole report.

    `number`: how often at most, once it has been made `WARM_UP` times.

    Source: https://nghttp2.org/documentation/h2load.1.html
    """
    report, number = "", _number(bench, number)
    with NamedTemporaryFile(dir=bench.folder) as file:
        file.write(body)
        file.flush()
        for times in (WARM_UP, number):
            command = ("h2load", "-d", file.name, "-n", str(times), *options)
            report = await output(*command, seconds=300, stderr=subprocess.STDOUT)
            if f" {times} succeeded" not in report:
                raise NotMeasured(f"not every call was answered with 200:\n{report}")
    return float(_find(r", ([0-9.]+) req/s", report)), number, report


def _number(bench: Bench, number: int) -> int:
    return min(number, 3000) if bench.quick else number


def _find(pattern: str, report: str) -> str:
    found = re.search(pattern, report)
    if found is None:
        raise NotMeasured(f"h2load wrote something else than expected:\n{report}")
    return found[1]


@group(times=3)
async def cycles(bench: Bench, side: Side) -> list[Figure]:
    """Push and pull a task, push and pull its result, past a queue that grows."""
    async with superlink(side) as link:
        medians = await in_thread(_ways, link, 20 if bench.quick else 100)
    growth = "a task's way, growth from none queued to 50,000"
    return [
        *(
            Figure(f"a task's way, {queued:,} queued for others", way, MILLISECONDS)
            for queued, way in zip(_QUEUED, medians, strict=True)
        ),
        Figure(growth, medians[-1] / medians[0], TIMES, at_most(1.3, TIMES)),
    ]


def _ways(link: SuperLink, number: int) -> list[float]:
    """Send tasks there and back past a queue that grows; give the medians in milliseconds."""
    driver, node = _clients(link)
    run_id = driver.create_run()
    others = cycle([node.create_node() for _ in range(_OTHERS)])
    me, in_queue, medians = node.create_node(), 0, []

    def there_and_back() -> None:
        [task_id] = driver.push_tasks([task_ins(run_id, me, _PAYLOAD)])
        [task] = node.pull_tasks(me)
        node.push_results([task_res(task, _PAYLOAD)])
        [result] = driver.pull_results([task_id])
        if list(result.task.ancestry) != [task_id] or result.task.recordset != _PAYLOAD:
            raise NotMeasured("a task came back with another task's result")

    for wanted in _QUEUED:
        while in_queue < wanted:
            driver.push_tasks([task_ins(run_id, next(others), _PAYLOAD)] * _PER_PUSH)
            in_queue += _PER_PUSH
        for _ in range(10):
            there_and_back()
        medians.append(1000 * median(_timed(there_and_back)[0] for _ in range(number)))
    return medians


@group(times=3)
async def models(bench: Bench, side: Side) -> list[Figure]:
    """Push one model to every node, one after the other, then let every node pull it."""
    async with superlink(side) as link:
        before = link.program.resident()
        push, pull = await in_thread(_push_and_pull, link)
        peak = (link.program.peak() - before) / 1e6
    what = f"{_MEGABYTES} MB model to {_NODES} nodes"
    return [
        Figure(f"{what}: peak memory", peak, MEGABYTES, at_most(420, MEGABYTES)),
        Figure(f"{what}: push", push, MEGABYTES_PER_SECOND, times_better(3)),
        Figure(f"{what}: pull", pull, MEGABYTES_PER_SECOND, times_better(2)),
    ]


def _push_and_pull(link: SuperLink) -> tuple[float, float]:
    """Push a model to every node, then let every node pull it; give MB (10^6 bytes) a second.

    Messages are made before the clock runs, and the answers are taken as bytes.
    """
    driver, node = _clients(link)
    run_id, nodes = driver.create_run(), [node.create_node() for _ in range(_NODES)]
    data, pushing, pulling = os.urandom(_MEGABYTES * 10**6), 0.0, 0.0
    for me in nodes:
        push = pb.PushTaskInsRequest(task_ins_list=[task_ins(run_id, me, record_set(data))])
        raw = push.SerializeToString()
        pushing += _timed(lambda: driver.send("PushTaskIns", raw))[0]  # noqa: B023 (called at once)
    for me in nodes:
        raw = pb.PullTaskInsRequest(node=me).SerializeToString()
        seconds, answer = _timed(lambda: node.send("PullTaskIns", raw))  # noqa: B023
        pulling += seconds
        if data not in answer:
            raise NotMeasured("a node got something else than the model")
    size = _NODES * _MEGABYTES
    return size / pushing, size / pulling


def _clients(link: SuperLink) -> tuple[Client, Client]:
    return Client(over_grpc(link.driver, "Driver")), Client(over_grpc(link.fleet, "Fleet"))


def _timed(action: Callable[[], Answer]) -> tuple[float, Answer]:
    start = time.perf_counter()
    answer = action()
    return time.perf_counter() - start, answer
