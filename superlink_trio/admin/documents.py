"""What both generations have in the overview: work, and rounds.

Times are Unix seconds. Ids are text: JavaScript rounds numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from superlink_trio.fleet import Work
from superlink_trio.rounds import RoundView

Document: TypeAlias = Mapping[str, Any]

_MOST_NAMED = 5  # nodes that a round waits for


def of_work(work: Work, called: str) -> Document:
    """Describe what a node works on; `called`: "task" or "message"."""
    return {
        f"{called}_id": work.id,
        "run_id": str(work.run_id),
        "round": work.group_id,
        "kind": work.kind,
        "since": work.since,
    }


def of_round(view: RoundView) -> Document:
    """Describe a round."""
    return {
        "round": view.group_id,
        "kind": view.kind,
        "began": view.began,
        "ended": view.ended,
        "asked": view.asked,
        "answered": view.answered,
        "errors": view.errors,
        "missing": view.missing,
        "waiting_for": [
            {"node_id": str(node.node_id), "since": node.since}
            for node in view.waiting_for[:_MOST_NAMED]
        ],
    }
