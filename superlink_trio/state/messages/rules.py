"""What may happen to nodes, runs and messages, whatever store it happens in: see `state.rules`.

Where a `WHERE` of SQL decides instead, because it picks rows, it says the same, and the contract
suite holds both to it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import attrs

from superlink_trio.state import rules as state_rules
from superlink_trio.state.interface import Admission
from superlink_trio.state.messages.interface import (
    CLAIM_TIMEOUT,
    MESSAGE_UNAVAILABLE,
    NODE_UNAVAILABLE,
    REPLY_UNAVAILABLE,
    SERVER,
    SESSION_TIMEOUT,
    TASK_TIMEOUT,
    NotPermitted,
    Wrong,
)
from superlink_trio.state.rules import Survey, bind
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import Envelope, NodeRecord, Outcome, RunRecord, RunStatus
from superlink_trio.wire.objects import MalformedObject, children_of, error_reply, ids_of

LONGEST_LOG = 4_000_000
"""Characters of one run's log; a line more and the oldest goes."""

KEPT_RUNS = 1000
"""Runs that are over and still known: of more, the oldest are forgotten."""

KEPT_LOGS = 64_000_000
"""Characters in the logs of all runs that are over: of more, the oldest runs' go."""

MOST_REPLIES = 256
"""Replies that are given at once."""

NO_NODE = "no node is registered with this key"

NO_TOKEN = "the token is not valid (any more)"

SILENT = "its process was not heard of for a minute"
"""Why a run has failed whose process is silent."""

UNUSED = f"Run %d was given away and has not begun within {CLAIM_TIMEOUT:g} s: it waits again"
"""What operators are told of a claim that nobody has used."""

# Log entries have different times, so that "after" is exact. In seconds.
_APART = 1e-6

_REASONS = {
    MESSAGE_UNAVAILABLE: "There is no such message (any more): its time may be out.",
    REPLY_UNAVAILABLE: "The node has not replied in time, or was started anew before it did.",
    NODE_UNAVAILABLE: "The node is offline: it has sent no heartbeat for a while.",
}


# Nodes


def admit(
    node_id: int, *, node_of_key: int | None, registered: bool, unregistered: bool, readmit: bool
) -> Admission:
    """Say whether a node is a key's; READMITTED: once it is registered with it.

    `unregistered`: whether the node was, and is so for good. Nobody is admitted as the server.
    """
    if node_id == SERVER:
        return Admission.UNKNOWN
    return bind(
        node_id,
        node_of_key=node_of_key,
        has_key=registered,
        deleted=unregistered,
        readmit=readmit,
    )


def key_in_use() -> NotPermitted:
    """Say that a key has a node."""
    return NotPermitted("the key has a node already: unregister that one first")


def activated(node: NodeRecord, interval: float, now: float) -> NodeRecord:
    """Give a node that has just come online."""
    return attrs.evolve(
        node,
        activated_at=now,
        deactivated_at=None,
        heartbeat_interval=interval,
        online_until=now + 2 * interval,
    )


def heard_of(node: NodeRecord, interval: float | None, now: float) -> NodeRecord:
    """Give a node after a heartbeat, which may name another interval."""
    if interval is None or math.isnan(interval):
        interval = node.heartbeat_interval
    until = max(node.online_until, now + 2 * interval)
    return attrs.evolve(node, heartbeat_interval=interval, online_until=until, deactivated_at=None)


def deactivated(node: NodeRecord, now: float) -> NodeRecord:
    """Give a node that has said that it leaves."""
    return attrs.evolve(node, deactivated_at=now, online_until=0.0)


def offline_since(node: NodeRecord) -> float:
    """Say until when a node was online, or might have been about to be."""
    return max(node.online_until, node.deactivated_at or 0.0, node.registered_at)


def gives_way(node: NodeRecord, since: float) -> bool:
    """Say whether a node is forgotten: it registered itself, and was offline all the time since."""
    return state_rules.gives_way(
        kept=not node.registered_itself, online_until=offline_since(node), since=since
    )


# Runs


def claimed(run: RunRecord, now: float) -> RunRecord:
    """Give a pending run that somebody is about to start."""
    return attrs.evolve(run, status=RunStatus.STARTING, starting_at=now)


def unclaimed(run: RunRecord) -> RunRecord:
    """Give a run that others may claim."""
    return attrs.evolve(run, status=RunStatus.PENDING, starting_at=0.0)


def begun(run: RunRecord, now: float) -> RunRecord:
    """Give a claimed run whose process has begun. Raises NotPermitted for any other run."""
    if run.status is not RunStatus.STARTING:
        raise NotPermitted(f"the run is {run.status.value}, it cannot begin")
    return attrs.evolve(run, status=RunStatus.RUNNING, running_at=now)


def finished(run: RunRecord, outcome: Outcome, details: str, now: float) -> RunRecord:
    """Give a run that is over."""
    return attrs.evolve(
        run, status=RunStatus.FINISHED, finished_at=now, outcome=outcome, details=details
    )


def last_words(run_id: int, outcome: Outcome, details: str) -> str:
    """Give what ends a run's log: why it was not completed."""
    if not details or outcome is Outcome.COMPLETED:
        return ""
    return f"Run {run_id} {outcome.value}: {details}\n"


def is_silent(status: RunStatus, alive_at: float, now: float) -> bool:
    """Say whether a claimed run's process was heard of too long ago, at `alive_at`."""
    return now > alive_at + (CLAIM_TIMEOUT if status is RunStatus.STARTING else TASK_TIMEOUT)


def next_moment(latest: float, now: float) -> float:
    """Give the time of what is logged now, where the latest entry is of `latest`."""
    return max(now, latest + _APART)


# Messages


class Phase(enum.IntEnum):
    """How far a message has come. The numbers are stored: they keep their meaning for ever."""

    ARRIVING = 0
    QUEUED = 1
    HANDED_OUT = 2
    DELIVERED = 3
    """Nobody is given it any more: an instruction is remembered, for its reply."""
    DROPPED = 4
    """Its run is over: as good as deleted, where deleting takes long."""


class Asked(NamedTuple):
    """An instruction, as far as it decides what becomes of its reply."""

    run_id: int
    reader: int
    expires_at: float
    replied: bool
    """Whether its reply, or an error in its place, is here."""


def check_metadata(message: pb.Message, run_id: int, source: int) -> None:
    """Raise Wrong where a message names another run, sender or reader than it has, or no time."""
    meta = message.metadata
    if meta.run_id != run_id:
        raise Wrong(f"a message of run {run_id} says that it is one of run {meta.run_id}")
    if meta.src_node_id != source:
        raise Wrong(f"a message from node {source} says that it is from node {meta.src_node_id}")
    if SERVER not in (source, meta.dst_node_id):
        raise Wrong(f"a reply is for node {SERVER}, which is the run, not {meta.dst_node_id}")
    if source == SERVER and not (meta.ttl > 0 and math.isfinite(meta.created_at)):
        raise Wrong(
            f"a message's ttl has to be above 0, and created_at a time: they are {meta.ttl} and "
            f"{meta.created_at}"
        )


def takes_reply(asked: Asked, run_id: int, source: int) -> bool:
    """Say whether a node's reply to an instruction is taken."""
    return (asked.run_id, asked.reader) == (run_id, source) and not asked.replied


def expires_at(message: pb.Message, now: float) -> float:
    """Say when a message that comes now runs out of time: at once, if it names no time."""
    until = min(message.metadata.created_at, now) + message.metadata.ttl
    return now if math.isnan(until) else until


def parts_of(envelope: Envelope) -> Sequence[str]:
    """Give the ids of a message's objects, but for its root, each once. Raises Wrong."""
    try:
        *parts, root = ids_of(envelope.tree)
    except MalformedObject as error:
        raise Wrong(f"message_object_trees: {error}") from None
    if root != envelope.message_id:
        raise Wrong(f"message {envelope.message_id[:80]!r} is not the root of its tree")
    return parts


def children_named(object_id: str, content: bytes) -> frozenset[str]:
    """Read which children an object has. Raises Wrong."""
    try:
        return frozenset(children_of(content))
    except MalformedObject as error:
        raise Wrong(f"object {object_id}: {error}") from None


def foreign_children(object_id: str) -> Wrong:
    """Say that an object has children that no message's tree has which it is part of."""
    return Wrong(f"object {object_id} has children that are not in its message's tree")


def code_of(asked: Asked | None, online_until: float, now: float) -> int | None:
    """Say which error stands in for the reply to an instruction; None while it may come."""
    if asked is None:
        return MESSAGE_UNAVAILABLE
    if asked.expires_at <= now:
        return REPLY_UNAVAILABLE
    return NODE_UNAVAILABLE if online_until <= now else None


def unknown_instruction(run_id: int, message_id: str) -> pb.Message:
    """Give what is known of an instruction that is asked for and not there."""
    unknown = pb.Message()
    unknown.metadata.run_id, unknown.metadata.message_id = run_id, message_id
    unknown.metadata.src_node_id = SERVER
    return unknown


def stand_in(asked: pb.Message, code: int, now: float) -> Envelope:
    """Make the error that stands in for a reply. Its only object is its root."""
    message = error_reply(asked, code, _REASONS[code], now=now)
    return Envelope(message, pb.ObjectTree(object_id=message.metadata.message_id))


def survey(
    message_ids: Collection[str],
    asked: Mapping[str, Asked],
    online_until: Callable[[int], float],
    now: float,
) -> Survey:
    """Tell which instructions are settled, and when an error may stand in next."""
    settled, changes_at = dict.fromkeys(message_ids, 0), math.inf
    for message_id, one in asked.items():
        until = online_until(one.reader)
        if not one.replied and code_of(one, until, now) is None:
            del settled[message_id]
            changes_at = min(changes_at, one.expires_at, until)
    return Survey(settled, changes_at)


class Fate(enum.Enum):
    """What a sweep does with a message."""

    KEEP = enum.auto()
    RELEASE = enum.auto()
    """Nobody is given it any more; the error that stands in can be asked for."""
    DELETE = enum.auto()


def fate(
    phase: Phase, *, is_reply: bool, replied: bool, expires_at: float, heard_at: float, now: float
) -> Fate:
    """Say what becomes of a message with time. `heard_at`: when something of it came last."""
    if phase is Phase.ARRIVING and now > heard_at + SESSION_TIMEOUT:
        return Fate.DELETE
    if is_reply or now <= expires_at:
        return Fate.KEEP
    return Fate.RELEASE if replied or now <= expires_at + SESSION_TIMEOUT else Fate.DELETE
