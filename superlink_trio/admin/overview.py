"""How everything is doing at this moment, as one JSON document: what every view of it shows.

Times are Unix seconds, ages seconds, sizes bytes. Ids are text: JavaScript rounds numbers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

import attrs

from superlink_trio.admin.documents import Document, of_round, of_work
from superlink_trio.admin.history import History
from superlink_trio.admin.sources import Sources
from superlink_trio.config import Address
from superlink_trio.fleet import NodeView
from superlink_trio.rounds import RoundView
from superlink_trio.state import Census


@attrs.frozen(kw_only=True)
class Overview:
    """Puts the document together."""

    history: History
    addresses: Callable[[], Mapping[str, Address]]
    """Where each API listens, by its path in the tree."""
    sources: Sources

    async def document(self) -> Document:
        """Describe this moment."""
        census, seen = await self.sources.census(), await self.sources.seen()
        unreadable = [] if census else ["the state cannot be read"]
        now = time.time()
        return {
            "version": version("superlink-trio"),
            "pid": os.getpid(),
            "time": now,
            "began": self.history.began,
            "faults": [*self.history.faults(), *unreadable],
            "addresses": {path: str(address) for path, address in self.addresses().items()},
            "parts": _parts(self.history),
            "nodes": _nodes(census, seen.nodes),
            "runs": _runs(seen.rounds),
            "flower": seen.flower and seen.flower.document(),
            "tasks": _tasks(census, now),
            "calls": seen.calls.view(),
            "events": _events(self.history),
        }


def _parts(history: History) -> list[Document]:
    return [
        {"path": path, "state": part.state.value, "since": part.since, "restarts": part.restarts}
        for path, part in history.parts.items()
    ]


def _events(history: History) -> list[Document]:
    return [
        {
            "time": happening.time,
            "path": happening.path,
            "kind": happening.kind.value,
            "words": happening.words,
        }
        for happening in history.latest
    ]


def _nodes(census: Census | None, shown: Sequence[NodeView]) -> Document:
    return {
        "known": census and census.nodes,
        "online": census and census.nodes_online,
        "shown": [
            {
                "node_id": str(node.node_id),
                "online": node.online,
                # Worked out from another clock, it is not the same to the last digit twice.
                "heard": round(node.heard, 1),
                "task": node.work and of_work(node.work, "task"),
            }
            for node in shown
        ],
    }


def _runs(rounds: Sequence[RoundView]) -> list[Document]:
    """Put the rounds of a run together: the run of the latest round first, its oldest first."""
    runs: dict[int, list[Document]] = {}
    for each in reversed(rounds):
        runs.setdefault(each.run_id, []).append(of_round(each))
    return [
        {"run_id": str(run_id), "rounds": latest_first[::-1]}
        for run_id, latest_first in runs.items()
    ]


def _tasks(census: Census | None, now: float) -> Document | None:
    if census is None:
        return None
    return {
        "by_state": {
            state.value: {
                "count": counted.count,
                # A moment, to a second: an age would change all the time.
                "since": round(now - counted.oldest) if counted.count else None,
            }
            for state, counted in census.tasks.items()
        },
        "payload_bytes": census.payloads.size,
        "shared_bytes": census.shared_bytes,
        "stored_bytes": census.stored_bytes,
    }
