"""Where what operators are shown comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs

from superlink_trio.admin.counts import Counts
from superlink_trio.admin.figures import Figures, Seen
from superlink_trio.admin.flower import Flower
from superlink_trio.admin.rates import Rates
from superlink_trio.admin.tally import LAG_BOUNDS, CallTally, Durations, measure_lag
from superlink_trio.fleet import NodeView
from superlink_trio.rounds import RoundView
from superlink_trio.state import Census, State
from superlink_trio.supervision import task_tree


class Sources(Protocol):
    """What an admin surface asks."""

    async def census(self) -> Census | None:
        """Count what is stored; None where the store cannot."""

    async def figures(self) -> Figures:
        """Give what is counted."""

    async def seen(self) -> Seen:
        """Give what is seen."""

    async def tasks(self) -> str:
        """Describe every task, and where it waits."""

    def workers(self) -> Mapping[int, int]:
        """Give the process ids of workers, by their numbers."""

    async def measure(self) -> None:
        """Measure, until cancelled, what no call brings."""


@attrs.frozen(kw_only=True)
class OwnSources:
    """What this process knows."""

    calls: CallTally
    rates: Rates
    state: State
    counts: Counts
    nodes: Callable[[], Sequence[NodeView]] = tuple
    """Those that are shown, the most telling first."""
    rounds: Callable[[], Sequence[RoundView]] = tuple
    """The oldest first."""
    flower: Flower | None = None
    """Nodes and runs of Flower 1.23 and later, where they are served."""
    lag: Durations = attrs.field(factory=lambda: Durations(LAG_BOUNDS))

    async def census(self) -> Census | None:
        """See `Sources`."""
        return await self.counts.census()

    async def figures(self) -> Figures:
        """See `Sources`."""
        return Figures(
            methods=dict(self.calls.methods()),
            held=dict(self.calls.held()),
            lag=self.lag.copy(),
            work=self.state.work,
            flower=None if self.flower is None else self.flower.state.census(),
            stored_limit=self.state.limits.stored_size,
        )

    async def seen(self) -> Seen:
        """See `Sources`."""
        return Seen(
            nodes=self.nodes(),
            rounds=self.rounds(),
            calls=self.rates.recent(),
            flower=None if self.flower is None else await self.flower.seen(),
        )

    async def tasks(self) -> str:
        """See `Sources`."""
        return task_tree()

    def workers(self) -> Mapping[int, int]:
        """See `Sources`."""
        return {}

    async def measure(self) -> None:
        """See `Sources`."""
        await measure_lag(self.lag.note)
