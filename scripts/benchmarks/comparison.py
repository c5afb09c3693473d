"""Measuring both sides in turn, several times: what a group of rows is given to work with."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import _peers
import attrs
import trio

from benchmarks.processes import FailedError, Side, SuperLink, superlink
from benchmarks.table import Row, Target, Unit

REFERENCE = "1.9.0"

Figures = Mapping[str, float]


class NotMeasuredError(Exception):
    """A group of rows cannot be measured here; the message says why."""


@attrs.frozen
class Comparison:
    """The samples of both sides, by the figure's name."""

    ours: Mapping[str, Sequence[float]]
    reference: Mapping[str, Sequence[float]]

    def row(self, figure: str, what: str, unit: Unit, target: Target | None = None) -> Row:
        """Make a row of one figure."""
        return Row(
            what=what,
            unit=unit,
            ours=self.ours[figure],
            reference=self.reference.get(figure, ()),
            target=target,
        )


@attrs.frozen(kw_only=True)
class Bench:
    """What is compared, and how thoroughly."""

    ours: Side
    reference: Side | None
    peer: Path | None
    """The interpreter that has Flower's clients and server-app; None without Flower."""
    quick: bool
    folder: Path
    """For what lasts as long as the run: logs, databases, the bodies of calls."""

    def superlink(
        self, side: Side, *options: str, fleet_api: str = "grpc-rere"
    ) -> AbstractAsyncContextManager[SuperLink]:
        """Run one side's SuperLink for as long as the block."""
        log = self.folder / f"{side.name}.log"
        return superlink(side, *options, log=log, fleet_api=fleet_api)

    async def compare(
        self, measure: Callable[[Side], Awaitable[Figures]], *, times: int
    ) -> Comparison:
        """Measure both sides in turn, this many times each; once when it has to be quick."""
        sides = [side for side in (self.reference, self.ours) if side is not None]
        samples: Mapping[str, dict[str, list[float]]] = {
            name: defaultdict(list) for name in ("reference", "ours")
        }
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
        return Comparison({figure: [value] for figure, value in figures.items()}, {})

    async def require(self, *options: str) -> None:
        """Raise NotMeasuredError when our SuperLink does not start with these options."""
        try:
            async with self.superlink(self.ours, *options):
                pass
        except FailedError as error:
            raise NotMeasuredError(str(error)) from None

    async def environment(self, *, beside: bool = False, simulation: bool = False) -> Path:
        """Give the Python of another environment with Flower; see `_peers.interpreter`.

        Raises NotMeasuredError when there is to be no Flower, or when it cannot be made.
        """
        if self.peer is None:
            raise NotMeasuredError("it needs Flower")
        make = partial(_peers.interpreter, REFERENCE, beside=beside, simulation=simulation)
        try:
            return await trio.to_thread.run_sync(make)
        except _peers.NoPeer as error:
            raise NotMeasuredError(str(error)) from None

    def database(self, side: Side) -> tuple[str, str]:
        """Give the options that have a SuperLink keep its state in a new SQLite file."""
        number = len(list(self.folder.glob("*.db")))
        return ("--database", str(self.folder / f"{side.name}-{number}.db"))


def tell(side: str, figures: Figures) -> None:
    """Show how the measurement goes; the table comes at the end."""
    text = ", ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
    print(f"  {side}: {text}", file=sys.stderr, flush=True)
