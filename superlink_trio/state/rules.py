"""What may happen, whatever store it happens in: pure functions of values, without any store.

A store asks them inside its own atomic step. Where a `WHERE` of SQL decides instead, because it
picks rows, it says the same with the same names, and the contract suite holds both to it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import attrs

from superlink_trio.state.census import TaskState
from superlink_trio.state.interface import (
    COME_BACK,
    LINGER,
    MAX_DELIVERIES,
    MAX_PING_INTERVAL,
    NODE_UNAVAILABLE,
    OUT_OF_TIME,
    Admission,
    NotTaken,
)
from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError


class Phase(enum.IntEnum):
    """How far a TaskIns has come. The numbers are stored: they keep their meaning for ever."""

    QUEUED = 0
    UNDER_WAY = 1
    """Taken, and neither handed over nor put back yet."""
    HANDED_OVER = 2
    CLOSED = 3
    """Answered or out of time. All before it count as unanswered."""


# Nodes


def bounded_interval(ping_interval: float) -> float:
    """Give the seconds for which a ping keeps a node online: 0 to `MAX_PING_INTERVAL`, NaN is 0.

    A node that named any interval it liked would be online for ever after it is gone: drivers
    would choose it, and it would never give way to another.
    """
    return min(max(0.0, ping_interval), MAX_PING_INTERVAL)


def online_until(stored: float, *, attended: bool, now: float) -> float:
    """Say when a registered node goes offline, if nothing else happens before."""
    return now + COME_BACK if attended else stored


def admit(node_id: int, *, registered: bool, deleted: bool, readmit: bool) -> Admission:
    """Say whether a node that calls is one of ours; READMITTED: once it is registered."""
    if registered:
        return Admission.KNOWN
    if not readmit or deleted or node_id == ANONYMOUS:
        return Admission.UNKNOWN
    return Admission.READMITTED


def bind(
    node_id: int, *, node_of_key: int | None, has_key: bool, deleted: bool, readmit: bool
) -> Admission:
    """Say whether a node is a key's; READMITTED: once it is bound to it.

    `has_key`: whether the node is bound to any key.
    """
    if node_of_key is not None:
        return Admission.KNOWN if node_of_key == node_id else Admission.FOREIGN
    if has_key:
        return Admission.FOREIGN
    return admit(node_id, registered=False, deleted=deleted, readmit=readmit)


def gives_way(*, kept: bool, online_until: float, since: float) -> bool:
    """Say whether a node is forgotten: it was not online at any time since.

    `kept`: whether it stays however long it is offline, since somebody counts on finding it.
    """
    return not kept and online_until <= since


# From the driver to the nodes


def may_be_taken(phase: Phase, *, answer_under_way: bool, expires_at: float, now: float) -> bool:
    """Say whether a TaskIns may be handed to its node.

    One whose driver is being told that its node is offline must not be worked on meanwhile.
    """
    return phase is Phase.QUEUED and not answer_under_way and expires_at > now


def is_lost(*, deliveries: int, sent_over: str, asked_over: str) -> bool:
    """Say whether a TaskIns that was handed over is queued again when its node asks for one.

    `sent_over`, `asked_over`: the connections; "" is an unknown one.
    """
    elsewhere = not asked_over or sent_over != asked_over
    return elsewhere and deliveries < MAX_DELIVERIES


class Fate(enum.Enum):
    """What a sweep does with a task."""

    KEEP = enum.auto()
    CLOSE = enum.auto()
    """Its node is not given it any more, its driver can still ask for it."""
    DROP = enum.auto()


def fate(*, expires_at: float, answer_under_way: bool, now: float) -> Fate:
    """Say what becomes of a task with time."""
    if answer_under_way or now < expires_at:
        return Fate.KEEP
    return Fate.CLOSE if now < expires_at + LINGER else Fate.DROP


def task_state(phase: Phase, *, answered: bool, expires_at: float, now: float) -> TaskState:
    """Say how far a TaskIns has come."""
    if answered:
        return TaskState.ANSWERED
    if expires_at <= now:
        return TaskState.OUT_OF_TIME
    if phase is Phase.QUEUED:
        return TaskState.QUEUED
    return TaskState.UNDER_WAY if phase is Phase.UNDER_WAY else TaskState.HANDED_OVER


# From the nodes to the driver


# Named tuples: they are made with every call, and attrs takes several times as long.


class Asked(NamedTuple):
    """A TaskIns, as far as it decides whether an answer is taken."""

    node_id: int
    run_id: int
    expires_at: float
    answer_id: str | None
    """The id of its first answer."""


class Verdict(enum.Enum):
    """What becomes of an answer."""

    STORE = enum.auto()
    REPEATED = enum.auto()
    """It is not the first: that one's id is given."""
    NO_SUCH_RUN = enum.auto()
    NOT_WAITED_FOR = enum.auto()
    NOT_ITS_TASK = enum.auto()

    def refusal(self, answer: Task, causes: str) -> NotTaken:
        """Put the refusal in words. `causes`: why a task may not be waited for in this store."""
        words = _REFUSALS[self].format(
            run_id=answer.run_id,
            asked_id=answer.ancestry[0],
            producer=answer.producer,
            causes=causes,
        )
        return NotTaken(words)


_REFUSALS: Mapping[Verdict, str] = {
    Verdict.NO_SUCH_RUN: "run {run_id} is not known",
    Verdict.NOT_WAITED_FOR: "task {asked_id} is not waited for: {causes}",
    Verdict.NOT_ITS_TASK: "task {asked_id} was not for node {producer}",
}


def judge(answer: Task, asked: Asked | None, *, run_exists: bool, now: float) -> Verdict:
    """Say what becomes of an answer to `asked`, None where the store has no such task."""
    if not run_exists:
        return Verdict.NO_SUCH_RUN
    if asked is None or (asked.answer_id is None and asked.expires_at <= now):
        return Verdict.NOT_WAITED_FOR
    if answer.producer != asked.node_id or answer.run_id != asked.run_id:
        return Verdict.NOT_ITS_TASK
    return Verdict.STORE if asked.answer_id is None else Verdict.REPEATED


def takes_error(*, node_id: int, answered: bool, producer: int | None) -> bool:
    """Say whether an error is stored as the answer; `producer`: who caused it, if it is known."""
    return not answered and producer in (None, node_id)


class Reply(enum.Enum):
    """What there is for a driver that asks for an answer."""

    ANSWER = enum.auto()
    LATER = enum.auto()
    UNDER_WAY = enum.auto()
    """Nothing, and nothing to wait for: it is on its way to a driver."""
    OUT_OF_TIME = enum.auto()
    NODE_UNAVAILABLE = enum.auto()

    @property
    def error(self) -> TaskError | None:
        """The error that stands in, if one does."""
        return _STANDS_IN.get(self)


_STANDS_IN: Mapping[Reply, TaskError] = {
    Reply.OUT_OF_TIME: OUT_OF_TIME,
    Reply.NODE_UNAVAILABLE: NODE_UNAVAILABLE,
}


class Question(NamedTuple):
    """A TaskIns, as far as it decides what its driver is given."""

    expires_at: float
    answer_size: int | None
    """Bytes of the answer, None while there is none."""
    answer_under_way: bool
    node_until: float
    """When its node goes offline; see `end_of_node`."""

    def reply(self, now: float) -> Reply:
        """Say what there is for its driver."""
        if self.answer_under_way:
            return Reply.UNDER_WAY
        if self.answer_size is not None:
            return Reply.ANSWER
        if self.expires_at <= now:
            return Reply.OUT_OF_TIME
        return Reply.NODE_UNAVAILABLE if self.node_until <= now else Reply.LATER

    @property
    def changes_at(self) -> float:
        """When an error may stand in, if nothing else happens before."""
        return min(self.expires_at, self.node_until)


@attrs.frozen
class Survey:
    """What a driver has to know that waits for answers."""

    settled: Mapping[str, int]
    """The sizes of the answers that wait, and 0 where there is nothing to wait for."""
    changes_at: float
    """When to look again, if nothing else happens before."""


def survey(task_ids: Iterable[str], questions: Mapping[str, Question], now: float) -> Survey:
    """Tell what is settled from what is worth waiting for; who has no question is not known."""
    settled = dict.fromkeys(task_ids, 0)
    changes_at = math.inf
    for task_id, question in questions.items():
        reply = question.reply(now)
        if reply is Reply.ANSWER:
            settled[task_id] = question.answer_size or 0
        elif reply is Reply.LATER:
            del settled[task_id]
            changes_at = min(changes_at, question.changes_at)
    return Survey(settled, changes_at)


def end_of_node(node_id: int, until: float | None) -> float:
    """Say until when a node may answer; `until`: when it goes offline, None: not registered."""
    if node_id == ANONYMOUS:
        return math.inf
    return -math.inf if until is None else until
