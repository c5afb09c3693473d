"""Several SuperLinks over one database: calls, the way of tasks, and what idle nodes cost."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio
from peering.client import Client, over_grpc
from peering.messages import record_set, task_ins, task_res
from peering.processes import SuperLink

from benchmarks.calls import pings
from benchmarks.comparison import Bench, NotMeasured, Side, gathered, group, in_thread, superlink
from benchmarks.deployments import (
    MEMORY,
    POSTGRESQL,
    SQLITE,
    Deployment,
    deployed,
    postgresql,
)
from benchmarks.table import (
    CALLS_PER_SECOND,
    KILOBYTES,
    MEGABYTES,
    MILLISECONDS,
    PERCENT,
    SECONDS,
    TASKS_PER_SECOND,
    Figure,
    Unit,
    at_most,
    middle_and_tail,
)
from benchmarks.waiting import HOLD, SETTLING, parked_nodes, raise_file_limit
from superlink_trio.wire import superlink_pb2 as pb

if TYPE_CHECKING:
    from peering.postgresql import Server

Item = TypeVar("Item")

_ALONE = (Deployment(MEMORY), Deployment(SQLITE), Deployment(POSTGRESQL))
_TWO, _FOUR = Deployment(POSTGRESQL, 2), Deployment(POSTGRESQL, 4)
_PAIRS = 32
_PARKED = 5_000
# As Flower's nodes have it, in seconds.
_PING_INTERVAL = 30.0

_LOGGED = "SELECT pg_current_wal_insert_lsn() - '0/0'"
_SIZE = "SELECT pg_database_size(current_database())"


class Relay(ABC):
    """Who asks at one SuperLink, and who answers, perhaps at another."""

    @abstractmethod
    def ask(self, number: int, asked: list[float]) -> list[float]:
        """Ask so many times, one after the other; note when, and give when each was answered."""

    @abstractmethod
    def answer(self, number: int, got: list[float]) -> None:
        """Answer so many times, and note when each question came."""

    async def ways(self, number: int) -> tuple[list[float], list[float]]:
        """Ask so many times somebody who waits for it, one after the other.

        Give the seconds from each push to the other's having it, and to the answer's having come.
        """
        asked, got = list[float](), list[float]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread, self.answer, number, got)
            answered = await in_thread(self.ask, number, asked)
        return _apart(asked, got), _apart(asked, answered)


@attrs.frozen
class _Relay(Relay):
    """A driver at one SuperLink, and a node, perhaps at another, that answers its tasks."""

    driver: Client
    fleet: Client
    run_id: int
    node: pb.Node

    @classmethod
    def between(cls, driver_at: SuperLink, node_at: SuperLink) -> _Relay:
        driver = Client(over_grpc(driver_at.driver, "Driver"))
        fleet = Client(over_grpc(node_at.fleet, "Fleet"))
        return cls(driver, fleet, driver.create_run(), fleet.create_node())

    def ask(self, number: int, asked: list[float]) -> list[float]:
        """See `Relay`."""
        answered = []
        for _ in range(number):
            content = record_set(os.urandom(100))
            asked.append(time.perf_counter())
            ids = self.driver.push_tasks([task_ins(self.run_id, self.node, content)])
            results = _first(lambda: self.driver.pull_results(ids))  # noqa: B023 (called at once)
            answered.append(time.perf_counter())
            if [result.task.recordset for result in results] != [content]:
                raise NotMeasured("a task came back with another task's result")
        return answered

    def answer(self, number: int, got: list[float]) -> None:
        """See `Relay`."""
        for _ in range(number):
            [task] = _first(lambda: self.fleet.pull_tasks(self.node))
            got.append(time.perf_counter())
            self.fleet.push_results([task_res(task, task.task.recordset)])


def _first(pull: Callable[[], Collection[Item]]) -> Collection[Item]:
    """Pull until there is something: a hold may end before, on a machine that is very busy."""
    while not (items := pull()):
        pass
    return items


def _apart(starts: Sequence[float], ends: Sequence[float]) -> list[float]:
    return [end - start for start, end in zip(starts, ends, strict=True)]


async def _relay(links: Sequence[SuperLink], number: int = 0) -> _Relay:
    """Make a relay of the SuperLink of that number and the next, which may be the same."""
    here, next_ = (links[each % len(links)] for each in (number, number + 1))
    return await in_thread(_Relay.between, here, next_)


@group(times=3, reference=0)
async def replicas(bench: Bench, side: Side) -> list[Figure]:
    """Calls a second, tasks a second and a task's way: one SuperLink, and several on PostgreSQL."""
    figures: list[Figure] = []
    async with postgresql() as server:
        for deployment in (*_ALONE, _TWO, _FOUR):
            async with deployed(bench, side, deployment, server) as links:
                figures += await _pings(deployment.name, bench, side, links)
                relays = [await _relay(links, number) for number in range(_PAIRS)]
                _, ways = await relays[0].ways(10 if bench.quick else 50)
                what = f"{deployment.name}: a task's way"
                figures.append(Figure(what, 1000 * median(ways), MILLISECONDS))
                number = 3 if bench.quick else 15
                what = f"{deployment.name}: tasks of {_PAIRS} pairs"
                figures += await at_once(what, relays, number, links, server)
    return figures


async def _pings(what: str, bench: Bench, side: Side, links: Sequence[SuperLink]) -> list[Figure]:
    rate, for_a_second = await pings(bench, side, links)
    return [
        Figure(f"{what}: Ping, 64 connections", rate, CALLS_PER_SECOND),
        Figure(f"{what}: Ping, for a second of processor time", for_a_second, CALLS_PER_SECOND),
    ]


async def at_once(
    what: str,
    relays: Sequence[Relay],
    number: int,
    links: Sequence[SuperLink],
    server: Server,
    *,
    unit: Unit = TASKS_PER_SECOND,
) -> list[Figure]:
    """Let relays ask so many times each, all at once."""

    def used() -> tuple[float, ...]:
        ours = sum(link.program.cpu_seconds() for link in links)
        return time.perf_counter(), ours, server.cpu_seconds(), server.number(_LOGGED)

    tasks, before = len(relays) * number, used()
    async with trio.open_nursery() as nursery:
        for relay in relays:
            nursery.start_soon(relay.ways, number)
    took, ours, database, logged = _apart(before, used())
    figures = [
        Figure(what, tasks / took, unit),
        Figure(f"{what}: processor time each", 1000 * ours / tasks, MILLISECONDS),
    ]
    if POSTGRESQL in what:
        what = f"{what}: PostgreSQL's"
        figures += [
            Figure(f"{what} processor time each", 1000 * database / tasks, MILLISECONDS),
            Figure(f"{what} write-ahead log each", logged / tasks / 1e3, KILOBYTES),
        ]
    return figures


@group(times=3, reference=0)
async def wake(bench: Bench, side: Side) -> list[Figure]:
    """From a push at one SuperLink until a node that waits at another has the task."""
    figures: list[Figure] = []
    async with postgresql() as server:
        for deployment in (Deployment(MEMORY), Deployment(SQLITE, 2), _TWO):
            async with deployed(bench, side, deployment, server) as links:
                wakes, _ = await (await _relay(links)).ways(20 if bench.quick else 200)
            what = f"wake, {deployment.name}"
            figures += middle_and_tail(what, wakes, at_most(50, MILLISECONDS))
    return figures


@group(times=5, reference=0)
async def workers(bench: Bench, side: Side) -> list[Figure]:
    """Calls a second of one SuperLink with `--workers 2`, and with one, over a file."""
    figures: list[Figure] = []
    for number in (1, 2):
        options = (*side.database(bench.folder), "--workers", str(number))
        async with superlink(side, *options) as link:
            what, memory = f"--workers {number}, SQLite", link.program.resident_with_children()
            figures += await _pings(what, bench, side, [link])
            figures.append(Figure(f"{what}: memory at rest", memory / 1e6, MEGABYTES))
    return figures


@group(times=1, reference=0)
async def parked_replicas(bench: Bench, side: Side) -> list[Figure]:
    """What many nodes cost while they wait at two SuperLinks over PostgreSQL."""
    number = _PARKED // 50 if bench.quick else _PARKED
    seconds = 3 if bench.quick else 30
    raise_file_limit(number)
    async with postgresql() as server, deployed(bench, side, _TWO, server, *HOLD) as links:
        before, empty = [link.program.resident() for link in links], server.number(_SIZE)
        async with AsyncExitStack() as nodes:
            for link in links:
                parking = parked_nodes(link, number // len(links), _PING_INTERVAL)
                await nodes.enter_async_context(parking)
            memory = sum(_apart(before, [link.program.resident() for link in links])) / number
            disk = (server.number(_SIZE) - empty) / number
            if not bench.quick:
                await trio.sleep(SETTLING)
            used, logged = server.cpu_seconds(), server.number(_LOGGED)
            idle = await gathered(*(partial(link.program.idle_cpu, seconds) for link in links))
            used, logged = server.cpu_seconds() - used, server.number(_LOGGED) - logged
            stopped = await gathered(*(link.program.terminate for link in links))
    what = f"{number:,} nodes parked at 2 SuperLinks on PostgreSQL"
    return [
        Figure(f"{what}: memory each", memory / 1e3, KILOBYTES, at_most(60, KILOBYTES)),
        Figure(f"{what}: processor time while idle, both", sum(idle), PERCENT),
        Figure(f"{what}: PostgreSQL's processor time while idle", 100 * used / seconds, PERCENT),
        Figure(f"{what}: write-ahead log in a second", logged / seconds / 1e3, KILOBYTES),
        Figure(f"{what}: PostgreSQL's disk each", disk / 1e3, KILOBYTES),
        Figure(f"{what}: SIGTERM to exit, both", max(stopped), SECONDS),
    ]
