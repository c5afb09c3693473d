"""Measuring both sides in turn, several times: what a group of rows is given to work with."""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import _peers
import attrs
import trio
from peering.processes import (
    OURS,
    Program,
    SuperLink,
    free_address,
    output,
    running,
)

from benchmarks.table import Row, Target, Unit

REFERENCE = "1.9.0"

Figures = Mapping[str, float]


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


@attrs.frozen
class Comparison:
    """The samples of both sides, by the figure's name."""

    ours: Mapping[str, Sequence[float]]
    reference: Mapping[str, Sequence[float]] = attrs.field(factory=dict)

    def row(self, figure: str, what: str, unit: Unit, target: Target | None = None) -> Row:
        """Make a row of one figure."""
        reference = self.reference.get(figure, ())
        return Row(what=what, unit=unit, ours=self.ours[figure], reference=reference, target=target)


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

    async def compare(
        self, measure: Callable[[Side], Awaitable[Figures]], *, times: int
    ) -> Comparison:
        """Measure both sides in turn, this many times each; once when it has to be quick."""
        sides = [side for side in (self.reference, self.ours) if side is not None]
        samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for _ in range(1 if self.quick else times):
            for side in sides:
                figures = await measure(side)
                tell(side.name, figures)
                for figure, value in figures.items():
                    samples[side.name][figure].append(value)
        return Comparison(samples["ours"], samples["reference"])

    async def measure_ours(self, measure: Callable[[], Awaitable[Figures]]) -> Comparison:
        """Measure once what the reference does not do."""
        figures = await measure()
        tell(self.ours.name, figures)
        return Comparison({figure: [value] for figure, value in figures.items()})

    async def environment(self, *, beside: bool = False, simulation: bool = False) -> Path:
        """Give the Python of another environment with Flower; see `_peers.interpreter`.

        Raises NotMeasured when there is to be no Flower, or when it cannot be made.
        """
        if self.peer is None:
            raise NotMeasured("it needs Flower")
        make = partial(_peers.interpreter, REFERENCE, beside=beside, simulation=simulation)
        try:
            return await trio.to_thread.run_sync(make)
        except _peers.NoPeer as error:
            raise NotMeasured(str(error)) from None


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


@asynccontextmanager
async def simulation(
    side: Side, app: str, folder: Path, *, nodes: int, backend: str
) -> AsyncIterator[SuperLink]:
    """Run a SuperLink whose nodes are simulated, by two workers, for as long as the block.

    The nodes are online, and the workers have loaded the app, when the block begins.
    """
    driver = free_address()
    apps = ("--client-app", app, "--app-dir", folder, "--num-supernodes", str(nodes))
    workers = ("--backend", backend, "--backend-config", json.dumps(two_workers(backend)))
    command = (*side.command, "--insecure", "--vce", "--driver-api-address", driver)
    async with running(side.name, *command, *apps, *workers) as program:
        await program.line("Simulating")
        yield SuperLink(program, driver, "")
        # Killed, it would leave its workers to notice.
        await program.terminate()


def two_workers(backend: str) -> dict[str, object]:
    """Give the settings that make a backend of ours have two workers on any machine."""
    if backend == "ray":
        return {"ray": {"num_cpus": 2}}
    return {"client_resources": {"num_cpus": len(os.sched_getaffinity(0)) / 2}}


async def load(name: str, *arguments: object) -> dict[str, Any]:
    """Run one of the loads to its end; give what it reports.

    Raises trio.TooSlowError when it takes longer than five minutes.
    """
    return dict(json.loads(await output(*_load(name, arguments), seconds=300)))


def loading(name: str, *arguments: object) -> AbstractAsyncContextManager[Program]:
    """Run one of the loads for as long as the block."""
    return running(f"the load {name}", *_load(name, arguments))


def _load(name: str, arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "benchmarks.loads", name, json.dumps(arguments)]


def expect(number: int, of: int, what: str) -> None:
    """Raise NotMeasured when not all did what they should."""
    if number != of:
        raise NotMeasured(f"{number} of {of} {what}")


def tell(side: str, figures: Figures) -> None:
    """Show how the measurement goes; the table comes at the end."""
    text = ", ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
    print(f"  {side}: {text}", file=sys.stderr, flush=True)
