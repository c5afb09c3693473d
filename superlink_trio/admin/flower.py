"""Nodes and runs of Flower 1.23 and later, as the overview shows them.

What is put together is bounded: so many nodes and runs, one look at the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice

import attrs

from superlink_trio.admin.documents import Document, of_round, of_work
from superlink_trio.fleet import NodeView, SuperNodes
from superlink_trio.rounds import Rounds, RoundView
from superlink_trio.state import StateUnavailable
from superlink_trio.state.messages import MessageState
from superlink_trio.wire.messages import NodeRecord, RunRecord

MOST_NODES, MOST_RUNS = 200, 50
"""That are shown at most."""

_LONGEST_REASON = 1000  # characters of what says why a run has failed: the last ones


@attrs.frozen(kw_only=True)
class Flower:
    """Nodes, runs and messages of Flower 1.23 and later, where they are served."""

    state: MessageState
    nodes: SuperNodes
    rounds: Rounds

    async def document(self) -> Document:
        """Describe this moment."""
        census = self.state.census()
        return {
            "known": census.nodes,
            "online": census.nodes_online,
            "runs": {status.value: count for status, count in census.runs.items()},
            "shown_nodes": await self._nodes(),
            "shown_runs": await self._runs(),
        }

    async def _nodes(self) -> Sequence[Document]:
        """Describe nodes, those that work first, then those heard of last, then all others."""
        now = self.state.now()
        views = {view.node_id: view for view in self.nodes.views()}
        heard = (record for id in views if (record := self.state.node(id)) is not None)
        others = (node for node in await self.state.nodes() if node.node_id not in views)
        return [
            _node(record, views.get(record.node_id), now)
            for record in islice(chain(heard, others), MOST_NODES)
        ]

    async def _runs(self) -> Sequence[Document]:
        """Describe runs, those that are not over first, of both the newest."""
        live = self.state.live_runs()
        newest: Sequence[RunRecord] = []
        with suppress(StateUnavailable):  # the log says why
            newest = await self.state.runs(MOST_RUNS)
        others = [run for run in newest if run.run_id not in live]
        latest = {view.run_id: view for view in self.rounds.views()}
        under_way = self.nodes.under_way()
        return [
            _run(run, latest.get(run.run_id), under_way)
            for run in [*reversed(list(live.values())), *others][:MOST_RUNS]
        ]


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
