"""What is counted and what is seen, of one process or of several that are one SuperLink."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import attrs

from superlink_trio.admin.flower import FlowerSeen
from superlink_trio.admin.rates import Recent
from superlink_trio.admin.tally import LAG_BOUNDS, Durations, MethodTally
from superlink_trio.fleet import NodeView
from superlink_trio.fleet import together as nodes_together
from superlink_trio.rounds import RoundView
from superlink_trio.rounds import together as rounds_together
from superlink_trio.state import Work
from superlink_trio.state.messages import MessagesCensus


@attrs.frozen(kw_only=True)
class Figures:
    """What is counted, as it was at one moment; parts and the store aside."""

    methods: Mapping[tuple[str, str], MethodTally] = attrs.field(factory=dict)
    """By service and method."""
    held: Mapping[str, int] = attrs.field(factory=dict)
    """Calls that are held, by service."""
    lag: Durations = attrs.field(factory=lambda: Durations(LAG_BOUNDS))
    work: Work | None = None
    flower: MessagesCensus | None = None
    stored_limit: float | None = None
    """None: not known at this moment."""

    def __add__(self, other: Figures) -> Figures:
        """Add up what two processes count; what they have in common is the first one's."""
        methods = dict(self.methods)
        for name, tally in other.methods.items():
            methods[name] = methods[name] + tally if name in methods else tally
        services = {**self.held, **other.held}
        return Figures(
            methods=methods,
            held={name: self.held.get(name, 0) + other.held.get(name, 0) for name in services},
            lag=self.lag + other.lag,
            work=_added(self.work, other.work),
            flower=self.flower or other.flower,
            stored_limit=other.stored_limit if self.stored_limit is None else self.stored_limit,
        )

    def once_ended(self) -> Figures:
        """Give what stays true when the process has ended: what only grows."""
        return Figures(
            methods={name: tally.once_ended() for name, tally in self.methods.items()},
            lag=self.lag,
            work=self.work,
        )


@attrs.frozen(kw_only=True)
class Seen:
    """What is seen of nodes, rounds and calls."""

    nodes: Sequence[NodeView] = ()
    """Those that are shown, the most telling first."""
    rounds: Sequence[RoundView] = ()
    """The oldest first."""
    calls: Recent = attrs.field(factory=Recent)
    flower: FlowerSeen | None = None
    """Nodes and runs of Flower 1.23 and later, where they are served."""

    @classmethod
    def of(cls, parts: Iterable[Seen]) -> Seen:
        """Put together what several processes see."""
        parts = tuple(parts)
        return cls(
            nodes=nodes_together(chain(*(part.nodes for part in parts))),
            rounds=rounds_together(chain(*(part.rounds for part in parts))),
            calls=Recent.of([part.calls for part in parts]),
            flower=FlowerSeen.of([part.flower for part in parts if part.flower is not None]),
        )


def _added(one: Work | None, other: Work | None) -> Work | None:
    if one is None or other is None:
        return one or other
    return Work(
        commits=one.commits + other.commits,
        steps=one.steps + other.steps,
        sweeps=one.sweeps + other.sweeps,
        commit_age=max(one.commit_age, other.commit_age),
    )
