"""The contract of what keeps nodes, runs and messages of Flower 1.23 and later. Read this first.

Each method is one atomic step. Waiting is part of the contract: the `await_…` methods return when
there is something to take, never miss it, and do not poll. A store on a disk may raise
StateUnavailable: nothing was changed then.

A message is a small envelope, and a tree of objects that follow one by one. It moves like this::

    push ──▶ arriving ──its last object──▶ queued ──take──▶ handed out ──confirm──▶ delivered
               │                             ▲                  │
               └── its session is silent     └── node takes ────┘
                   for too long: gone            anew

An instruction goes from a run to a node, its reply from the node to the run. A reply is taken by
the instruction's id; where none will come, an error stands in. What was delivered is deleted, but
for the instruction's envelope: it is remembered until its reply was delivered, or its time is out.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar

import attrs
import trio

from superlink_trio.state.interface import HEARTBEAT_TIMEOUT, Clock
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import Envelope, NodeRecord, Outcome, RunRecord, RunStatus
from superlink_trio.wire.objects import MalformedObject
from superlink_trio.wire.runs import Fab, Scalar

SERVER = 1
"""The node id of runs: where instructions come from, and replies go to."""

SESSION_TIMEOUT = 180.0
"""Seconds without an object after which a message that is still arriving is given up."""

CLAIM_TIMEOUT = 30.0
"""Seconds in which who has claimed a run has to begin it, or others may."""

TASK_TIMEOUT = 60.0
"""Seconds without a heartbeat after which the process of a run is taken for dead."""

EVICT_AFTER = 2 * HEARTBEAT_TIMEOUT
"""Seconds offline after which a node that registered itself gives way, where there is no room.

As long as a usual heartbeat keeps a node online: who has just come has that time for the first.
"""

MESSAGE_UNAVAILABLE, REPLY_UNAVAILABLE, NODE_UNAVAILABLE = 3, 4, 5
"""Codes of errors that stand in for replies, as Flower's apps know them."""


class NotFound(LookupError):
    """There is no such node, run or message (any more); the message says which."""


class NotPermitted(Exception):
    """It is there, and not in a state in which this can be done; the message says why."""


Wrong = MalformedObject
"""What was given is not what it should be; the message says why."""


@attrs.frozen(kw_only=True)
class MessagesCensus:
    """How many nodes and runs there are."""

    nodes: int
    nodes_online: int
    runs: Mapping[RunStatus, int]
    """Those that are not over, by every status that they may have."""


@attrs.frozen(kw_only=True)
class NewRun:
    """What a run is made of. `series_id`: 0 for a series of its own.

    `simulation`: how its nodes are simulated, by the process of the run; None: they are not.
    """

    fab: Fab
    fab_id: str
    fab_version: str
    override_config: Mapping[str, Scalar] = attrs.field(factory=dict)
    series_id: int = 0
    simulation: pb.SimulationConfig | None = None


@attrs.frozen
class Claim:
    """The right to run a run, for who knows the token."""

    run: RunRecord
    token: str = attrs.field(repr=False)


@attrs.frozen
class Pushed:
    """What became of envelopes that were pushed."""

    message_ids: Sequence[str]
    """In their order; "" for one that was not taken."""
    missing: Sequence[str]
    """The objects that are not here yet, each once."""
    session_id: str
    """Names the push to those who send them."""


@attrs.frozen
class Logged:
    """What a run has logged since some moment."""

    text: str
    latest: float
    """When the last of it came, in Unix seconds: ask for what is after that next."""
    over: bool
    """Whether there will be no more."""


class MessageState(ABC):
    """Nodes, runs and messages of one SuperLink."""

    outlives_process: ClassVar[bool]
    """Whether all of it is there again when the process was killed and is started anew."""

    def __init__(self, *, clock: Clock = time.time) -> None:
        self.now = clock

    @abstractmethod
    async def serve(
        self,
        *,
        stopping: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run the store's own tasks until `stopping`; ready when the store is."""

    @abstractmethod
    async def serve_again(self) -> None:
        """Serve, though `stop_serving` may have been called; a store that opens does by itself."""

    @abstractmethod
    async def stop_serving(self) -> bool:
        """Serve no more; say whether other processes still serve the same, and go on.

        Of several that stop at the same time the last one is told that none does.
        """

    # Nodes

    @abstractmethod
    def census(self) -> MessagesCensus:
        """Count nodes and runs, as this process knows them."""

    @abstractmethod
    async def register_node(
        self, public_key: bytes, *, itself: bool = False, name: str = "", location: str = ""
    ) -> int:
        """Register the node of a key; give its new id.

        `itself`: nobody but the node has asked for it. It is forgotten when it has been offline
        for `FORGET` seconds, or for `EVICT_AFTER` where there is no room for another: then the one
        that is offline longest. Raises NotPermitted if the key has a node, and LimitReached.
        """

    @abstractmethod
    async def activate_node(self, public_key: bytes, heartbeat_interval: float) -> int:
        """Take a registered node for online, from now on; give its id. Raises NotFound.

        It was started anew: what it had confirmed and not replied to, it will not reply to.
        """

    @abstractmethod
    async def admit_node(self, node_id: int, public_key: bytes, *, readmit: bool) -> bool:
        """Say whether a node is the key's.

        With `readmit` a key that has no node is given this one, if that is no other key's: it was
        registered before this SuperLink was started, or was forgotten. It counts as registered by
        itself. A node that was unregistered stays so. Raises LimitReached.
        """

    @abstractmethod
    async def heartbeat(self, node_id: int, heartbeat_interval: float | None = None) -> bool:
        """Keep a node online for twice its interval; say whether it is known."""

    @abstractmethod
    async def deactivate_node(self, node_id: int) -> bool:
        """Take a node for offline; say whether it is known."""

    @abstractmethod
    async def unregister_node(self, node_id: int) -> bool:
        """Forget a node for good; say whether it was known. Its held pull ends."""

    @abstractmethod
    def node(self, node_id: int) -> NodeRecord | None:
        """Give a registered node, as this process knows it."""

    @abstractmethod
    async def nodes(self) -> Sequence[NodeRecord]:
        """Give all registered nodes."""

    @abstractmethod
    async def online_nodes(self) -> Sequence[int]:
        """Give the ids of the nodes that are online."""

    # Runs

    @abstractmethod
    def live_runs(self) -> Mapping[int, RunRecord]:
        """Give the runs that are not over, as this process knows them, the oldest first."""

    @abstractmethod
    async def create_run(self, new: NewRun) -> RunRecord:
        """Store a run, which waits to be claimed."""

    @abstractmethod
    async def run(self, run_id: int) -> RunRecord | None:
        """Give a run."""

    @abstractmethod
    async def runs(self, limit: int, skip: int = 0) -> Sequence[RunRecord]:
        """Give the newest runs, the newest first."""

    @abstractmethod
    async def fab(self, fab_hash: str) -> Fab | None:
        """Give a bundle by its SHA-256 in hex, for as long as a run of it is not over."""

    @abstractmethod
    async def claim_run(self) -> Claim | None:
        """Claim the oldest run that is pending, for who is about to start its process."""

    @abstractmethod
    async def unclaim_run(self, token: str) -> bool:
        """Let others claim a run that was claimed with this token and has not begun.

        Say whether there is one; its token is void.
        """

    @abstractmethod
    async def claimed_runs(self) -> Sequence[RunRecord]:
        """Give the runs that have a token: those that are being started, and those under way."""

    @abstractmethod
    async def await_pending_run(self) -> None:
        """Return when there is a run to claim."""

    @abstractmethod
    async def begin_run(self, token: str) -> RunRecord:
        """Note that a claimed run is running. Raises NotFound, and NotPermitted if it was begun."""

    @abstractmethod
    async def run_of_token(self, token: str) -> RunRecord | None:
        """Give the run that a token is for, None if it is not valid (any more)."""

    @abstractmethod
    async def task_heartbeat(self, token: str) -> bool:
        """Note that a run's process lives; say whether its run goes on."""

    @abstractmethod
    async def finish_run(self, run_id: int, outcome: Outcome, details: str = "") -> bool:
        """End a run and delete its messages; say whether it was not over yet. Its token is void.

        The last line of its log says why, unless it was completed.
        """

    @abstractmethod
    async def await_finished(self, run_id: int) -> None:
        """Return when a run is over, or unknown."""

    @abstractmethod
    async def log(self, run_id: int, text: str) -> None:
        """Keep what a run logs: a bounded amount, the oldest goes first."""

    @abstractmethod
    async def logs(self, run_id: int, after: float) -> Logged:
        """Give what a run has logged after a moment. Raises NotFound."""

    @abstractmethod
    async def await_logs(self, run_id: int, after: float) -> None:
        """Return when there is more of a run's log, or there will be no more."""

    # Messages and their objects

    @abstractmethod
    async def push(self, run_id: int, source: int, envelopes: Sequence[Envelope]) -> Pushed:
        """Take messages of a run, from its app (`SERVER`) or from a node.

        An instruction is not taken for an unknown node or run, a reply only from the node that has
        the instruction, once. Raises Wrong for a tree that is none, and for metadata that name
        another run or sender.
        """

    @abstractmethod
    async def put_object(self, run_id: int, source: int, object_id: str, content: bytes) -> None:
        """Take an object that a message from `source` misses.

        Where none does there is nothing to do: its message has gone on since, or has come to
        nothing, which its reply tells. Raises Wrong for content that is not what its id says.
        """

    @abstractmethod
    async def get_object(self, run_id: int, reader: int, object_id: str) -> bytes | None:
        """Give an object of a message that was handed out to `reader`; None if there is none."""

    @abstractmethod
    async def take(self, node_id: int) -> Envelope | None:
        """Give a node its oldest instruction, one that it was given and has not confirmed first."""

    @abstractmethod
    async def await_instruction(self, node_id: int) -> bool:
        """Return True when there is something to take, False when the node is not known.

        False as well when a newer call waits for the node.
        """

    @abstractmethod
    async def take_replies(self, run_id: int, message_ids: Collection[str]) -> Sequence[Envelope]:
        """Give the replies to instructions that are there, or errors that stand in.

        They are given again until they are confirmed. Of many the first are given, so that others
        need not wait: who confirms these asks for the rest.
        """

    @abstractmethod
    async def await_replies(
        self,
        run_id: int,
        message_ids: Collection[str],
        progress: Callable[[int], object] | None = None,
    ) -> None:
        """Return when every one of the instructions is settled.

        `progress` is told how many are not, at first and whenever one more is settled.
        """

    @abstractmethod
    async def confirm(self, run_id: int, reader: int, message_id: str) -> None:
        """Note that a message that was handed out has arrived, with all its objects."""
