"""What a database has to be able to do for Flower 1.23 and later; see `state.durable.engine`.

Where a method has the name of one of `MessageState` it does the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import attrs

from superlink_trio.state.messages import rules
from superlink_trio.state.messages.durable.heartbeats import Heartbeat
from superlink_trio.state.messages.interface import Logged, Pushed, Wrong
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import Envelope, NodeRecord, Outcome, RunRecord
from superlink_trio.wire.runs import Fab


@attrs.frozen
class Sent:
    """A message as it is stored: its tree without the root, which others may share."""

    message: pb.Message
    tree: bytes
    digest: bytes
    """The SHA-256 of `tree`."""
    parts: Sequence[str] | Wrong
    """The ids of the objects in it; why it is no tree."""

    @classmethod
    def of(cls, envelope: Envelope) -> Sent:
        """Take an envelope apart."""
        below = pb.ObjectTree(children=envelope.tree.children)
        tree = below.SerializeToString(deterministic=True)
        parts: Sequence[str] | Wrong
        try:
            parts = rules.parts_of(envelope)
        except Wrong as error:
            parts = error
        return cls(envelope.message, tree, hashlib.sha256(tree).digest(), parts)

    @property
    def message_id(self) -> str:
        """The message's id."""
        return self.message.metadata.message_id


@attrs.frozen
class StoredRun:
    """A run, the SHA-256 of its token (b"" for none), and when it has logged something last."""

    record: RunRecord
    token: bytes = attrs.field(repr=False)
    logged_at: float


@attrs.frozen
class Resumed:
    """What is known at the start without asking."""

    nodes: Sequence[NodeRecord]
    runs: Sequence[StoredRun]
    """Those that are not over."""


class MessageQueries(Protocol):
    """One consistent state of the database, only to be looked at."""

    def has_node(self, node_id: int) -> bool: ...
    def has_node_of_key(self, public_key: bytes) -> bool: ...

    def has_run(self, run_id: int) -> bool:
        """Say whether there is a run that is not over."""

    def has_token(self, token: bytes) -> bool:
        """Say whether there is a run with a token, by its SHA-256."""

    def read_run(self, run_id: int) -> RunRecord | None:
        """Give a run."""

    def newest_runs(self, limit: int, skip: int) -> Sequence[RunRecord]:
        """Give the newest runs, the newest first."""

    def logs(self, run_id: int, after: float) -> Logged: ...
    def get_object(self, run_id: int, reader: int, object_id: str) -> bytes | None: ...

    def has_instruction(self, node_id: int) -> bool:
        """Say whether there is something to take for a node."""

    def asked(self, run_id: int, message_ids: Collection[str]) -> Mapping[str, rules.Asked]:
        """Give those of a run's instructions that are known."""

    def online_nodes(self) -> Mapping[int, float]:
        """Give the nodes that are online and until when, as far as it is written down."""

    def online_until(self, node_ids: Collection[int]) -> Mapping[int, float]:
        """Say until when registered nodes are online, as far as it is written down."""


class MessageTransaction(MessageQueries, Protocol):
    """A transaction that may write."""

    def resume(self) -> Resumed:
        """Give everybody time anew, who had nobody to talk to, and what is known at the start.

        Raises CannotOpen where another process serves these nodes, and none may beside it.
        """

    def look_at_all(self) -> None:
        """Look up all nodes, and all runs that are not over; they are known from then on."""

    def look_at_nodes(self, node_ids: Collection[int]) -> None: ...
    def look_at_node_of_key(self, public_key: bytes) -> None: ...
    def look_at_runs(self, run_ids: Collection[int]) -> None: ...
    def look_at_run_of_token(self, token: bytes) -> None: ...

    def serve(self) -> bool:
        """Note that this process serves them; say whether no other does."""

    def stop_serving(self) -> None:
        """Note that this process serves nodes, runs and messages no more."""

    def is_served_elsewhere(self) -> bool:
        """Say whether other processes serve them."""

    def register_node(self, node: NodeRecord, heard: Collection[int]) -> None:
        """Store a new node; `heard`: those that are online, whatever the database says.

        Raises NotPermitted where its key has one.
        """

    def admit_node(self, node: NodeRecord, heard: Collection[int], *, readmit: bool) -> bool:
        """Say whether a node is its key's, and store it where it may be; `heard`: as above."""

    def forget_nodes(self, heard: Collection[int]) -> None:
        """Forget those who registered themselves and were not online for long; `heard`: ditto."""

    def activate_node(self, node: NodeRecord) -> bool:
        """Store a node that was started anew; say whether it is known."""

    def update_node(self, node: NodeRecord) -> bool:
        """Store what became of a node; say whether it is known."""

    def unregister_node(self, node_id: int) -> bool: ...

    def write_heartbeats(self, heard: Mapping[int, Heartbeat]) -> None:
        """Write down how long nodes are online, unless others have heard of them later."""

    def pulled(self, node_id: int) -> None:
        """Notify the other processes that a node pulls from this one now."""

    def create_run(self, run: RunRecord, fab: Fab) -> None:
        """Store a new run and its bundle."""

    def claim_run(self, token: bytes) -> RunRecord | None: ...

    def unclaim_run(self, token: bytes) -> bool: ...
    def begin_run(self, token: bytes) -> RunRecord: ...

    def keep_run(self, token: bytes, heard_at: float) -> None:
        """Let other processes know when a run's process, by its token, was heard of last."""

    def give_up_run(self, token: bytes, heard_at: float) -> float | None:
        """End a claimed run whose process is silent, or let others claim it if it has not begun.

        `heard_at`: when this process has heard of it last. Gives when any has, or None where it
        was given up; the time where its token is void.
        """

    def finish_run(self, run_id: int, outcome: Outcome, details: str) -> bool: ...
    def log(self, run_id: int, text: str) -> None: ...
    def push(self, run_id: int, source: int, sent: Sequence[Sent]) -> Pushed: ...

    def put_object(self, run_id: int, source: int, object_id: str, content: bytes) -> None:
        """Take an object that a message from `source` misses. Raises Busy."""

    def arrive(self, object_id: str) -> None:
        """Let go on whatever message is whole, now that others see that this object is here."""

    def take(self, node_id: int) -> Envelope | None: ...

    def take_replies(
        self, run_id: int, message_ids: Collection[str], codes: Mapping[str, int]
    ) -> Sequence[Envelope]:
        """Give replies; `codes`: the errors that stand in where there is none."""

    def confirm(self, run_id: int, reader: int, message_id: str) -> None: ...

    def sweep(self) -> bool:
        """Delete a portion of what came to nothing; say whether there may be more."""

    def purge(self) -> bool:
        """Delete a portion of the messages of runs that are over, and of what nobody refers to.

        Say whether there may be more.
        """
