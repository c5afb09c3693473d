"""Nodes and runs of Flower 1.23 and later, as the overview shows them.

What is put together is bounded: so many nodes and runs, one look at the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice

import attrs

from superlink_trio.admin.documents import Document, of_round, of_work
from superlink_trio.fleet import NodeView, SuperNodes
from superlink_trio.fleet import together as nodes_together
from superlink_trio.rounds import Rounds, RoundView
from superlink_trio.rounds import together as rounds_together
from superlink_trio.state import StateUnavailable
from superlink_trio.state.messages import MessagesCensus, MessageState
from superlink_trio.wire.messages import NodeRecord, RunRecord

MOST_NODES, MOST_RUNS = 200, 50
"""That are shown at most."""

_LONGEST_REASON = 1000  # characters of what says why a run has failed: the last ones


@attrs.frozen(kw_only=True)
class FlowerSeen:
    """What is seen of nodes and runs, of one process or of several over the same store."""

    census: MessagesCensus
    now: float
    """Unix seconds."""
    nodes: Sequence[NodeRecord]
    """As the store has them: those that are viewed first."""
    views: Sequence[NodeView]
    """Those that work, then those heard of last."""
    runs: Sequence[RunRecord]
    """Those that are not over first, of both the newest."""
    rounds: Sequence[RoundView]
    """The oldest first."""
    under_way: Counter[tuple[int, str, str]]
    """Messages that nodes work on, by run, group and kind."""

    @classmethod
    def of(cls, parts: Sequence[FlowerSeen]) -> FlowerSeen | None:
        """Put together what several processes see; what the store has is the first one's."""
        if not parts:
            return None
        records = {record.node_id: record for part in parts[::-1] for record in part.nodes}
        views = nodes_together(chain(*(part.views for part in parts)))
        heard = [records[view.node_id] for view in views if view.node_id in records]
        others = [node for node in parts[0].nodes if node not in heard]
        return attrs.evolve(
            parts[0],
            nodes=[*heard, *others],
            views=views,
            rounds=rounds_together(chain(*(part.rounds for part in parts))),
            under_way=sum((part.under_way for part in parts), Counter()),
        )

    def document(self) -> Document:
        """Describe it."""
        views = {view.node_id: view for view in self.views}
        latest = {view.run_id: view for view in self.rounds}
        return {
            "known": self.census.nodes,
            "online": self.census.nodes_online,
            "runs": {status.value: count for status, count in self.census.runs.items()},
            "shown_nodes": [
                _node(record, views.get(record.node_id), self.now)
                for record in self.nodes[:MOST_NODES]
            ],
            "shown_runs": [
                _run(run, latest.get(run.run_id), self.under_way) for run in self.runs[:MOST_RUNS]
            ],
        }


@attrs.frozen(kw_only=True)
class Flower:
    """Nodes, runs and messages of Flower 1.23 and later, where they are served."""

    state: MessageState
    nodes: SuperNodes
    rounds: Rounds

    async def seen(self) -> FlowerSeen:
        """Look at this moment."""
        views = self.nodes.views()
        return FlowerSeen(
            census=self.state.census(),
            now=self.state.now(),
            nodes=await self._nodes([view.node_id for view in views]),
            views=views,
            runs=await self._runs(),
            rounds=self.rounds.views(),
            under_way=self.nodes.under_way(),
        )

    async def _nodes(self, first: Sequence[int]) -> Sequence[NodeRecord]:
        """Give nodes, these first."""
        heard = (record for id in first if (record := self.state.node(id)) is not None)
        heard_of = frozenset(first)
        others = (node for node in await self.state.nodes() if node.node_id not in heard_of)
        return list(islice(chain(heard, others), MOST_NODES))

    async def _runs(self) -> Sequence[RunRecord]:
        """Give runs, those that are not over first, of both the newest."""
        live = self.state.live_runs()
        newest: Sequence[RunRecord] = []
        with suppress(StateUnavailable):  # the log says why
            newest = await self.state.runs(MOST_RUNS)
        others = [run for run in newest if run.run_id not in live]
        return [*reversed(list(live.values())), *others][:MOST_RUNS]


def _node(record: NodeRecord, view: NodeView | None, now: float) -> Document:
    return {
        "node_id": str(record.node_id),
        "name": record.name,
        "state": record.status(now),
        # Worked out from another clock, it is not the same to the last digit twice.
        "heard": view and round(view.heard, 1),
        "message": view and view.work and of_work(view.work, "message"),
        "messages": view.works if view else 0,
    }


def _run(
    run: RunRecord,
    latest: RoundView | None,
    under_way: Mapping[tuple[int, str, str], int],
) -> Document:
    times = (run.finished_at, run.running_at, run.starting_at, run.pending_at)
    return {
        "run_id": str(run.run_id),
        "fab_id": run.fab_id,
        "fab_version": run.fab_version,
        "status": (run.outcome or run.status).value,
        "since": next(time for time in times if time),
        "began": run.running_at or None,
        "ended": run.finished_at or None,
        "reason": run.details[-_LONGEST_REASON:],
        "round": latest and {**of_round(latest), **_progress(latest, under_way)},
    }


def _progress(view: RoundView, under_way: Mapping[tuple[int, str, str], int]) -> Document:
    """Tell of messages without an answer which a node works on, and which wait for theirs."""
    working = min(view.missing, under_way.get((view.run_id, view.group_id, view.kind), 0))
    return {"under_way": working, "waiting": view.missing - working}
