"""What a database holds of Flower 1.23 and later, counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from superlink_trio.state.census import Contents
from superlink_trio.state.messages.ids import to_unsigned
from superlink_trio.state.messages.rules import Phase
from superlink_trio.state.sql.transaction import Reading

PHASES: Mapping[str, Phase] = {
    "arriving": Phase.ARRIVING,
    "queued": Phase.QUEUED,
    "handed out": Phase.HANDED_OUT,
}
"""Those of messages that somebody is still to be given, by what they are called."""

MOST_NODES = 200
"""That are told of one by one."""


@attrs.frozen(kw_only=True)
class AppRunReport:
    """One run. `messages` counts instructions and replies by how far they have come."""

    run_id: int
    fab_id: str
    fab_version: str
    status: str
    messages: Mapping[str, int]


@attrs.frozen(kw_only=True)
class NodeReport:
    """One node. `online_until`: Unix seconds, 0 for one that never was, or has left."""

    node_id: int
    name: str
    online_until: float
    registered_itself: bool


@attrs.frozen(kw_only=True)
class MessagesReport:
    """Nodes, runs and messages. Sizes are bytes."""

    nodes: int
    nodes_online: int
    objects: Contents
    latest_nodes: Sequence[NodeReport]
    """Those that were online last, so many at most."""
    runs: Sequence[AppRunReport]


def report(tx: Reading) -> MessagesReport:
    """Count what is in the database."""
    nodes = tx.first(
        "SELECT count(*), count(CASE WHEN online_until > ? THEN 1 END) FROM superlink_supernode",
        tx.now,
    )
    objects = tx.first(
        "SELECT count(content), coalesce(sum(length(content)), 0) FROM superlink_object"
    )
    assert nodes is not None, "it counts"
    assert objects is not None, "it counts"
    return MessagesReport(
        nodes=nodes[0],
        nodes_online=nodes[1],
        objects=Contents(objects[0], int(objects[1])),
        latest_nodes=_nodes(tx),
        runs=_runs(tx),
    )


def _nodes(tx: Reading) -> Sequence[NodeReport]:
    found = tx.execute(
        "SELECT node_id, name, online_until, registered_itself FROM superlink_supernode"
        " ORDER BY online_until DESC, registered_at DESC LIMIT ?",
        MOST_NODES,
    ).fetchall()
    return [
        NodeReport(
            node_id=to_unsigned(node_id),
            name=name,
            online_until=until,
            registered_itself=bool(itself),
        )
        for node_id, name, until, itself in found
    ]


def _runs(tx: Reading) -> Sequence[AppRunReport]:
    counted = {
        (run_id, phase): messages
        for run_id, phase, messages in tx.execute(
            "SELECT run_id, phase, count(*) FROM superlink_message GROUP BY run_id, phase"
        ).fetchall()
    }
    found = tx.execute(
        "SELECT run_id, fab_id, fab_version, coalesce(outcome, status) FROM superlink_app_run"
        " ORDER BY number"
    ).fetchall()
    return [
        AppRunReport(
            run_id=to_unsigned(run_id),
            fab_id=fab_id,
            fab_version=fab_version,
            status=status,
            messages={
                name: counted.get((run_id, phase.value), 0) for name, phase in PHASES.items()
            },
        )
        for run_id, fab_id, fab_version, status in found
    ]
