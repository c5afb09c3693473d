"""What a process knows of nodes and runs without asking its database, and who waits.

Where it is the only one that serves them that is all there is to know, as of the last commit. What
other processes do it hears of, and looks up: until then it knows what was so a moment ago, and of
what it does not know at all it asks the database first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

import attrs
import trio

from superlink_trio.state.durable.engine import Change, ChangeKind, Committed
from superlink_trio.state.interface import Clock
from superlink_trio.state.messages import rules
from superlink_trio.state.messages.bell import Bell
from superlink_trio.state.messages.durable.engine import MessageTransaction, Resumed, StoredRun
from superlink_trio.state.messages.durable.heartbeats import Heartbeats
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


@attrs.define(eq=False)
class Unseen:
    """What other processes have changed, and this one has not looked up yet."""

    nodes: set[int] = attrs.field(factory=set)
    runs: set[int] = attrs.field(factory=set)
    everything: bool = False
    some: trio.Event = attrs.field(factory=trio.Event)

    def add(
        self, nodes: Collection[int] = (), runs: Collection[int] = (), *, everything: bool = False
    ) -> None:
        """Note what has to be looked up."""
        self.nodes.update(nodes)
        self.runs.update(runs)
        self.everything = self.everything or everything
        self.some.set()

    def look(self, tx: MessageTransaction) -> None:
        """Look it up: a step."""
        if self.everything:
            tx.look_at_all()
        else:
            tx.look_at_nodes(self.nodes)
            tx.look_at_runs(self.runs)


class Known:
    """Every commit comes by here, in order: what this process changed, and what it heard of."""

    def __init__(self, clock: Clock) -> None:
        self._now = clock
        self.nodes = Roster()
        self.heartbeats = Heartbeats()
        self.runs: dict[int, LiveRun] = {}
        """Those that are not over, the oldest first."""
        self.pending = Bell()
        self.pulls = Parked()
        self.replies = Gatherings(clock)
        self.unseen = Unseen()
        self._by_token: dict[bytes, LiveRun] = {}
        # Nodes that have pulled from no other process since they pulled from this one.
        self._pulled_here: set[int] = set()

    def of_token(self, token: str) -> LiveRun | None:
        """Give the run of a token; None if it is not valid (any more)."""
        return self._by_token.get(digest_of(token))

    @property
    def has_pending(self) -> bool:
        """Whether there is a run to claim."""
        return bool(self.pending_runs())

    def pending_runs(self) -> Sequence[int]:
        """Give the runs to claim, the oldest first."""
        runs = self.runs.items()
        return [run_id for run_id, run in runs if run.record.status is RunStatus.PENDING]

    def claimed(self) -> Sequence[LiveRun]:
        """Give the runs that were claimed, or are running."""
        return tuple(self._by_token.values())

    def silent(self) -> Sequence[LiveRun]:
        """Give those whose process is silent, as far as this process has heard."""
        now = self._now()
        return [
            run for run in self.claimed() if rules.is_silent(run.record.status, run.alive_at, now)
        ]

    def pulls_elsewhere(self, node_id: int) -> bool:
        """Whether a node may have a pull that waits at another process, if there is any."""
        return node_id not in self._pulled_here

    def pulls_here(self, node_id: int) -> None:
        """Note that a node has pulled from this process, and the others know."""
        self._pulled_here.add(node_id)

    def take_unseen(self) -> Unseen:
        """Give what is to be looked up; what comes after it is for the next time."""
        unseen, self.unseen = self.unseen, Unseen()
        return unseen

    def see_online(self, until: Mapping[int, float]) -> None:
        """Take note of nodes that other processes have heard of, and until when they are online."""
        for node_id, later in until.items():
            node = self.nodes.get(node_id)
            if node is not None and node.deactivated_at is None and later > node.online_until:
                self.nodes.put(attrs.evolve(node, online_until=later))

    def committed(self, committed: Committed) -> None:
        """Take note of a commit."""
        if committed.missed_news:
            self.unseen.add(everything=True)
        for change in committed.news:
            self._hear(change)
        for performed in committed.performed:
            for change in performed.changes:
                self._note(change)

    def _hear(self, change: Change) -> None:
        """Take note of what another process has changed."""
        match change.kind:
            case ChangeKind.SUPERNODE:
                self.unseen.add(nodes=[change.key])
            case ChangeKind.APP_RUN | ChangeKind.LOGGED:
                self.unseen.add(runs=[change.key])
            case ChangeKind.SUPERNODE_PULLED:
                self._pulled_here.discard(change.key)
                self.pulls.replace(change.key)
            case ChangeKind.INSTRUCTION | ChangeKind.REPLY:
                self._note(change)

    def _note(self, change: Change) -> None:
        """Take note of a change, and wake who waits for it."""
        match change.kind:
            case ChangeKind.SUPERNODE:
                self.heartbeats.forget(change.key)
                self._note_node(change.key, change.value)
            case ChangeKind.SUPERNODE_SEEN:
                self._note_node(change.key, change.value)
            case ChangeKind.APP_RUN:
                self._note_run(*change.value)
            case ChangeKind.APP_RUN_SEEN:
                self._see_run(change.key, change.value)
            case ChangeKind.LOGGED if change.key in self.runs:
                self.runs[change.key].logged_at = change.value
                self.runs[change.key].news.ring()
            case ChangeKind.INSTRUCTION:
                self.pulls.wake_one(change.key)
            case ChangeKind.REPLY:
                self.replies.settle(change.key, 0)
            case ChangeKind.ALL_SEEN:
                self.resume(change.value)

    def resume(self, resumed: Resumed) -> None:
        """Take what was found for all there is, and let everybody look again."""
        for node_id in {node.node_id for node in self.nodes.all()}.difference(
            node.node_id for node in resumed.nodes
        ):
            self._note_node(node_id, None)
        for node in resumed.nodes:
            self.nodes.put(self.heartbeats.applied(node))
        for run_id in self.runs.keys() - {stored.record.run_id for stored in resumed.runs}:
            self._see_run(run_id, None)
        for stored in resumed.runs:
            self._see_run(stored.record.run_id, stored)
        self._pulled_here.clear()
        self.pulls.wake_everyone()
        self.replies.look_again()

    def _note_node(self, node_id: int, node: NodeRecord | None) -> None:
        if node is not None:
            self.nodes.put(self.heartbeats.applied(node))
        else:
            self.heartbeats.forget(node_id)
            self._pulled_here.discard(node_id)
            self.nodes.remove(node_id)
            self.pulls.wake_all(node_id)
        # An error may stand in now for what was asked of it.
        self.replies.look_again()

    def _see_run(self, run_id: int, stored: StoredRun | None) -> None:
        known = self.runs.get(run_id)
        if stored is None:
            self._forget_run(run_id)
        elif known is None or (known.record, known.token) != (stored.record, stored.token):
            self._note_run(stored.record, stored.token)
        if stored is not None and run_id in self.runs:
            self.runs[run_id].logged_at = stored.logged_at
            self.runs[run_id].news.ring()

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
            self._forget_run(record.run_id)

    def _forget_run(self, run_id: int) -> None:
        run = self.runs.pop(run_id, None)
        if run is not None:
            self._by_token.pop(run.token, None)
            run.news.ring()
        self.replies.look_again()
