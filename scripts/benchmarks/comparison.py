"""Measuring both sides in turn, several times: what a group of rows is given to work with."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import _peers
import attrs
import trio
from peering.processes import OURS, Program, SuperLink, free_address, running

from benchmarks.table import Figure, Row

REFERENCE = "1.9.0"

# No load takes longer, in seconds.
_PATIENCE = 300

_threads = trio.CapacityLimiter(200)

Answer = TypeVar("Answer")


class NotMeasured(Exception):
    """A group of rows cannot be measured here; the message says why."""


@attrs.frozen
class Side:
    """One of the two SuperLinks that are compared, and how it is started."""

    name: str
    command: tuple[str | Path, ...] = OURS

    def database(self, folder: Path) -> tuple[str, str]:
        """Give the options that have it keep its state in a new SQLite file."""
        number = len(list(folder.glob("*.db")))
        return ("--database", str(folder / f"{self.name}-{number}.db"))


@attrs.frozen(kw_only=True)
class Bench:
    """What is compared, and how thoroughly."""

    ours: Side
    reference: Side | None
    peer: Path | None
    """The interpreter that has Flower's clients and server-app; None without Flower."""
    quick: bool
    folder: Path
    """For what lasts as long as the run: databases, the bodies of calls."""

    def client(self, *arguments: str | Path) -> AbstractAsyncContextManager[Program]:
        """Run a program under Flower's interpreter for as long as the block, unheard.

        Raises NotMeasured when there is to be no Flower.
        """
        if self.peer is None:
            raise NotMeasured("it needs Flower's clients")
        return running("client", self.peer, *arguments, silent=True)

    async def environment(
        self, version: str = REFERENCE, *, beside: bool = False, simulation: bool = False
    ) -> Path:
        """Give the Python of another environment with Flower; see `_peers.interpreter`.

        Raises NotMeasured when there is to be no Flower, or when it cannot be made.
        """
        if self.peer is None:
            raise NotMeasured("it needs Flower")
        make = partial(_peers.interpreter, version, beside=beside, simulation=simulation)
        try:
            return await trio.to_thread.run_sync(make)
        except _peers.NoPeer as error:
            raise NotMeasured(str(error)) from None


Measure = Callable[[Bench, Side], Awaitable[list[Figure]]]


@attrs.frozen
class Group:
    """Rows that are measured together, and how often on either side."""

    measure: Measure
    _times: int
    _reference: int

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return self.measure.__name__.replace("_", "-")

    @property
    def what(self) -> str:
        """What its rows say, in short."""
        return (self.measure.__doc__ or self.name).partition("\n")[0].rstrip(".")

    async def rows(self, bench: Bench) -> list[Row]:
        """Measure both sides in turn; once each when it has to be quick."""
        rows: dict[str, Row] = {}
        for number in range(1 if bench.quick else self._times):
            for side in (bench.reference, bench.ours):
                if side is None or (side is bench.reference and number >= self._reference):
                    continue
                for each in await self.measure(bench, side):
                    value = f"{each.value:.4g} {each.unit.name}"
                    print(f"  {side.name}: {each.what}: {value}", file=sys.stderr, flush=True)
                    row = Row(what=each.what, unit=each.unit, target=each.target)
                    row = rows.setdefault(each.what, row)
                    (row.ours if side is bench.ours else row.reference).append(each.value)
        return list(rows.values())


def group(*, times: int, reference: int | None = None) -> Callable[[Measure], Group]:
    """Make a group of what measures one side once.

    It is measured so many times, on Flower's side `reference` times if that is fewer; 0 is for
    what Flower does not do.
    """
    return lambda measure: Group(measure, times, times if reference is None else reference)


@asynccontextmanager
async def superlink(
    side: Side, *options: str, fleet_api: str = "grpc-rere"
) -> AsyncIterator[SuperLink]:
    """Run one side's SuperLink for as long as the block; it listens when the block begins."""
    driver, fleet = free_address(), free_address()
    addresses = ("--driver-api-address", driver, "--fleet-api-address", fleet)
    kind = ("--insecure", "--fleet-api-type", fleet_api)
    async with running(side.name, *side.command, *kind, *addresses, *options) as program:
        for address in (driver, fleet):
            await program.listens(address)
        yield SuperLink(program, driver, fleet)


def two_workers(backend: str) -> dict[str, object]:
    """Give the settings that make a backend of ours have two workers on any machine."""
    if backend == "ray":
        return {"ray": {"num_cpus": 2}}
    return {"client_resources": {"num_cpus": len(os.sched_getaffinity(0)) / 2}}


async def in_thread(load: Callable[..., Answer], *arguments: object) -> Answer:
    """Run what bears on a SuperLink to its end; give what it reports.

    Raises trio.TooSlowError when it takes longer than five minutes.
    """
    with trio.fail_after(_PATIENCE):
        once = partial(load, *arguments)
        return await trio.to_thread.run_sync(once, abandon_on_cancel=True, limiter=_threads)


async def gathered(*loads: Callable[[], Awaitable[float]]) -> list[float]:
    """Run several at once; give what they report, in their order."""
    reports = [0.0] * len(loads)

    async def run(place: int) -> None:
        reports[place] = await loads[place]()

    async with trio.open_nursery() as nursery:
        for place in range(len(loads)):
            nursery.start_soon(run, place)
    return reports


def expect(number: int, of: int, what: str) -> None:
    """Raise NotMeasured when not all did what they should."""
    if number != of:
        raise NotMeasured(f"{number} of {of} {what}")
