"""What a process knows of nodes and runs without asking its database, and who waits.

It is the only one that serves them: what it knows is all there is to know, as of the last commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import attrs

from superlink_trio.state.durable.engine import Change, ChangeKind
from superlink_trio.state.interface import Clock
from superlink_trio.state.messages import rules
from superlink_trio.state.messages.bell import Bell
from superlink_trio.state.messages.durable.engine import Resumed
from superlink_trio.state.messages.roster import Roster
from superlink_trio.state.waiting import Gatherings, Parked
from superlink_trio.wire.messages import NodeRecord, RunRecord, RunStatus


def digest_of(token: str) -> bytes:
    """Give what is kept of a token: who reads a copy of the database has not got it."""
    return hashlib.sha256(token.encode()).digest()


@attrs.define(eq=False)
class LiveRun:
    """A run that is not over. Times are Unix seconds."""

    record: RunRecord
    token: bytes = attrs.field(repr=False)
    alive_at: float
    """When its process was heard of last."""
    logged_at: float = 0.0
    news: Bell = attrs.field(factory=Bell)


class Known:
    """Every change that is committed comes by here, in commit order."""

    def __init__(self, clock: Clock) -> None:
        self._now = clock
        self.nodes = Roster()
        self.runs: dict[int, LiveRun] = {}
        """Those that are not over, the oldest first."""
        self.pending = Bell()
        self.pulls = Parked()
        self.replies = Gatherings(clock)
        self._by_token: dict[bytes, LiveRun] = {}

    def resume(self, resumed: Resumed) -> None:
        """Take what was found at the start for all there is."""
        self.nodes.clear()
        self.runs.clear()
        self._by_token.clear()
        for node in resumed.nodes:
            self.nodes.put(node)
        for stored in resumed.runs:
            self._note_run(stored.record, stored.token)
            self.runs[stored.record.run_id].logged_at = stored.logged_at

    def of_token(self, token: str) -> LiveRun | None:
        """Give the run of a token; None if it is not valid (any more)."""
        return self._by_token.get(digest_of(token))

    @property
    def has_pending(self) -> bool:
        """Whether there is a run to claim."""
        return any(run.record.status is RunStatus.PENDING for run in self.runs.values())

    def claimed(self) -> Sequence[LiveRun]:
        """Give the runs that were claimed, or are running."""
        return tuple(self._by_token.values())

    def silent(self) -> Sequence[LiveRun]:
        """Give those whose process is silent."""
        now = self._now()
        return [
            run for run in self.claimed() if rules.is_silent(run.record.status, run.alive_at, now)
        ]

    def note(self, change: Change) -> None:
        """Take note of a change, and wake who waits for it."""
        match change.kind:
            case ChangeKind.SUPERNODE:
                self._note_node(change.key, change.value)
            case ChangeKind.APP_RUN:
                self._note_run(*change.value)
            case ChangeKind.LOGGED if change.key in self.runs:
                self.runs[change.key].logged_at = change.value
                self.runs[change.key].news.ring()
            case ChangeKind.INSTRUCTION:
                self.pulls.wake_one(change.key)
            case ChangeKind.REPLY:
                self.replies.settle(change.key, 0)

    def _note_node(self, node_id: int, node: NodeRecord | None) -> None:
        if node is not None:
            self.nodes.put(node)
        else:
            self.nodes.remove(node_id)
            self.pulls.wake_all(node_id)
        # An error may stand in now for what was asked of it.
        self.replies.look_again()

    def _note_run(self, record: RunRecord, token: bytes) -> None:
        run = self.runs.get(record.run_id)
        if run is None:
            run = self.runs[record.run_id] = LiveRun(record, b"", self._now())
        self._by_token.pop(run.token, None)
        run.record, run.token, run.alive_at = record, token, self._now()
        if token:
            self._by_token[token] = run
        if record.status is RunStatus.PENDING:
            self.pending.ring()
        elif record.status is RunStatus.FINISHED:
            del self.runs[record.run_id]
            run.news.ring()
            self.replies.look_again()
