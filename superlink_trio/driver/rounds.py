"""The rounds of every run: what was asked, what was answered, who is waited for.

A round is the tasks of one kind that a driver pushes under one group id: the clients of Flower
call it by the number of the server's round. It is followed by what passes the Driver API, wherever
the nodes are.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import attrs
import trio

from superlink_trio.driver.progress import Progress, named
from superlink_trio.logs.throttle import Throttle, shorten
from superlink_trio.state.interface import LINGER, Clock
from superlink_trio.wire.tasks import Task, TaskError

_log = logging.getLogger(__name__)

MOST_ROUNDS = 200
"""Rounds that are remembered, of all runs together."""

MOST_MISSING = 20
"""Nodes of a round that are named as missing at most."""

_PAUSE = 5.0
"""Seconds after its last answer within which a round may go on: Flower's drivers push from several
threads, each of which sleeps between a task and the next one."""

_LOOK_EVERY = 5.0  # seconds between two looks at who is waited for

_FIRST_WAIT = 60.0
"""Seconds after which the log speaks of a node that is waited for; then after twice as many."""

_MOST_NAMED = 3  # nodes that are waited for, in a line

_MOST_LINES = 60  # a minute, about all that is waited for

_LONGEST_WORD = 40  # characters of what a driver calls a round, or a kind of task


class Missing(NamedTuple):
    """A node that has not answered. `since` is when it was asked, in Unix seconds."""

    node_id: int
    since: float


@attrs.frozen(kw_only=True)
class RoundView:
    """A round as operators are shown it. Times are Unix seconds."""

    run_id: int
    group_id: str
    kind: str
    began: float
    ended: float | None
    """When its last answer was collected, or given up; None: it goes on."""
    asked: int
    """Tasks pushed."""
    answered: int
    """Answers that its driver collected, errors included."""
    errors: int
    missing: int
    """Tasks that are waited for still."""
    waiting_for: Sequence[Missing]
    """Those that were asked first."""


class _Asked(NamedTuple):
    node: Missing
    expires_at: float
    """When nobody can ask for its answer any more."""


@attrs.define(eq=False)
class _Round:
    """A round, as it is followed. Times are Unix seconds."""

    run_id: int
    group_id: str
    kind: str
    began: float
    ended: float | None = None
    asked: int = 0
    answered: int = 0
    errors: int = 0
    missing: dict[str, _Asked] = attrs.field(factory=dict)
    """By task ids, in the order in which they were asked."""
    told_since: float = -math.inf
    """When the node was asked of which the log spoke last."""
    next_line: float = 0.0
    """After how many seconds from then it speaks again."""

    def first_missing(self, most: int) -> Sequence[Missing]:
        """Give nodes that are missing, those that were asked first."""
        return [asked.node for asked in islice(self.missing.values(), most)]

    def settle(self, task_id: str, now: float) -> None:
        """Wait for a task no longer."""
        del self.missing[task_id]
        if not self.missing:
            self.ended = now

    def is_worth_a_line(self, now: float) -> bool:
        """Say whether it has waited for 1, 2, 4, 8 … minutes, each once."""
        if not self.missing:
            return False
        [first] = self.first_missing(1)
        # Nodes that were asked together are waited for together.
        if first.since > self.told_since + _FIRST_WAIT:
            self.told_since, self.next_line = first.since, _FIRST_WAIT
        waited = now - first.since
        if waited < self.next_line:
            return False
        while self.next_line <= waited:
            self.next_line *= 2
        return True

    def view(self) -> RoundView:
        """Show the round."""
        return RoundView(
            run_id=self.run_id,
            group_id=self.group_id,
            kind=self.kind,
            began=self.began,
            ended=self.ended,
            asked=self.asked,
            answered=self.answered,
            errors=self.errors,
            missing=len(self.missing),
            waiting_for=self.first_missing(MOST_MISSING),
        )


class Rounds:
    """Follows the rounds of all runs, and logs what moves and what does not.

    It outlives the Driver API: a round goes on when that is served again.
    """

    def __init__(self, clock: Clock = time.time) -> None:
        self._now = clock
        self._rounds: dict[_Round, None] = {}  # the oldest first
        self._latest: dict[tuple[int, str, str], _Round] = {}
        self._asked: dict[str, _Round] = {}  # where the tasks belong that are waited for
        self._progress = Progress()
        self._throttle = Throttle(_log, burst=_MOST_LINES)

    def sent(self, tasks: Sequence[Task]) -> None:
        """Note tasks that a driver pushed."""
        for task in tasks:
            found = self._round_of(task)
            found.asked += 1
            found.ended = None
            node = Missing(task.consumer, task.pushed_at)
            found.missing[task.task_id] = _Asked(node, task.pushed_at + task.ttl + LINGER)
            self._asked[task.task_id] = found
            self._progress.sent(found.run_id, found.group_id, found.kind, task.consumer)

    def collected(self, answers: Sequence[Task]) -> None:
        """Note answers that reached their driver."""
        now = self._now()
        for answer in answers:
            error = answer.content.reason if isinstance(answer.content, TaskError) else None
            # A node may say what it likes about the round; where it was asked is known here.
            found = self._asked.pop(answer.ancestry[0], None)
            group_id = shorten(answer.group_id, _LONGEST_WORD) if found is None else found.group_id
            self._progress.collected(answer.run_id, group_id, error)
            if found is not None:
                found.answered += 1
                found.errors += error is not None
                found.settle(answer.ancestry[0], now)

    def views(self) -> Sequence[RoundView]:
        """Show the rounds, the oldest first."""
        return [each.view() for each in self._rounds]

    async def report(self) -> None:
        """Log what moves, and who is waited for, until cancelled; what moved last then."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._progress.report)
            while True:
                await trio.sleep(_LOOK_EVERY)
                self._look()

    def _round_of(self, task: Task) -> _Round:
        group_id, kind = (shorten(word, _LONGEST_WORD) for word in (task.group_id, task.task_type))
        key = (task.run_id, group_id, kind)
        latest = self._latest.get(key)
        now = self._now()
        if latest is not None and (latest.ended is None or now < latest.ended + _PAUSE):
            return latest
        if len(self._rounds) >= MOST_ROUNDS:
            self._forget(next(iter(self._rounds)))
        latest = self._latest[key] = _Round(*key, began=now)
        self._rounds[latest] = None
        return latest

    def _forget(self, old: _Round) -> None:
        del self._rounds[old]
        for task_id in old.missing:
            del self._asked[task_id]
        key = (old.run_id, old.group_id, old.kind)
        if self._latest[key] is old:
            del self._latest[key]

    def _look(self) -> None:
        now = self._now()
        for each in self._rounds:
            for task_id in [id for id, asked in each.missing.items() if asked.expires_at <= now]:
                del self._asked[task_id]
                each.settle(task_id, now)
            if each.is_worth_a_line(now):
                self._tell(each, now)

    def _tell(self, waiting: _Round, now: float) -> None:
        named_nodes = waiting.first_missing(_MOST_NAMED)
        more = len(waiting.missing) - len(named_nodes)
        nodes = ", ".join(str(node.node_id) for node in named_nodes)
        self._throttle.log(
            logging.INFO,
            None,
            "%s: %s, %d of %d answered, waiting for %s %s%s since %d min",
            *(named(waiting.run_id, waiting.group_id), waiting.kind),
            *(waiting.answered, waiting.asked),
            *("node" if len(waiting.missing) == 1 else "nodes", nodes),
            f" and {more} more" if more else "",
            (now - named_nodes[0].since) // 60,
            extra={
                "run_id": waiting.run_id,
                "round": waiting.group_id,
                "kind": waiting.kind,
                "asked": waiting.asked,
                "answered": waiting.answered,
                "missing": len(waiting.missing),
                "waited_seconds": round(now - named_nodes[0].since, 1),
            },
        )
