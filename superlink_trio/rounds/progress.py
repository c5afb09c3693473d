"""What moves, as the log has it: a line a round and second, however many tasks that is."""

from __future__ import annotations

import logging
from collections import Counter

import attrs
import trio

from superlink_trio.logs.throttle import Throttle, shorten
from superlink_trio.logs.wording import counted, tallied

_log = logging.getLogger(__name__)

_INTERVAL = 1.0  # seconds between two lines about one round
_MOST_LINES = 600  # a minute, about all of them


@attrs.define
class _Moved:
    work: str
    sent: Counter[str] = attrs.field(factory=Counter)
    nodes: set[int] = attrs.field(factory=set)
    answers: int = 0
    errors: Counter[str] = attrs.field(factory=Counter)

    def __str__(self) -> str:
        parts = []
        if self.sent:
            kinds = " and ".join(f"{count} {kind}" for kind, count in sorted(self.sent.items()))
            work = self.work if self.sent.total() == 1 else f"{self.work}s"
            parts.append(f"{kinds} {work} sent to {counted(len(self.nodes), 'node')}")
        if self.answers:
            parts.append(f"{counted(self.answers, 'answer')} collected")
        if self.errors:
            errors = counted(self.errors.total(), "error")
            parts.append(f"{errors} among them: {tallied(self.errors)}")
        return ", ".join(parts)


class Progress:
    """Counts what is asked and answered in every round, and logs what has moved."""

    def __init__(self, work: str = "task") -> None:
        """Call by `work` what is asked."""
        self._work = work
        self._rounds: dict[tuple[int, str], _Moved] = {}
        self._news = trio.Event()
        self._throttle = Throttle(_log, burst=_MOST_LINES)

    def sent(self, run_id: int, group_id: str, kind: str, node_id: int) -> None:
        """Count what a node was asked."""
        moved = self._round(run_id, group_id)
        moved.sent[kind] += 1
        moved.nodes.add(node_id)

    def collected(self, run_id: int, group_id: str, error: str | None) -> None:
        """Count an answer that was handed over; `error`: what stands in its place."""
        moved = self._round(run_id, group_id)
        moved.answers += 1
        if error is not None:
            moved.errors[shorten(error)] += 1

    async def report(self) -> None:
        """Log what has moved, until cancelled; the last of it then."""
        try:
            while True:
                await self._news.wait()
                await trio.sleep(_INTERVAL)
                self._tell()
        finally:
            self._tell()

    def _round(self, run_id: int, group_id: str) -> _Moved:
        self._news.set()
        return self._rounds.setdefault((run_id, group_id), _Moved(self._work))

    def _tell(self) -> None:
        rounds, self._rounds = self._rounds, {}
        self._news = trio.Event()
        for (run_id, group_id), moved in rounds.items():
            self._throttle.log(
                logging.INFO,
                None,
                "%s: %s",
                *(named(run_id, group_id), moved),
                extra={
                    "run_id": run_id,
                    "round": group_id,
                    f"{moved.work}s": moved.sent.total(),
                    "nodes": len(moved.nodes),
                    "answers": moved.answers,
                    "errors": moved.errors.total(),
                },
            )


def named(run_id: int, group_id: str) -> str:
    """Write `Run 7, round 2`; drivers need not number their rounds, nor name them."""
    return f"Run {run_id}, round {group_id}" if group_id else f"Run {run_id}"
