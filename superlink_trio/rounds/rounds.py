"""The rounds of every run: what was asked, what was answered, who is waited for.

A round is the tasks, or the messages, of one kind that are pushed under one group id: Flower's
strategies call it by the number of the server's round. It is followed by what passes the Driver
API or the Runtime API, wherever the nodes are.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Container, Iterable, Sequence
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

import attrs
import trio

from superlink_trio.logs.throttle import Throttle, shorten
from superlink_trio.rounds.progress import Progress, named
from superlink_trio.state.interface import Clock

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


class Asked(NamedTuple):
    """What a node was asked: a task, or a message. Times are Unix seconds."""

    id: str
    run_id: int
    group_id: str
    kind: str
    node_id: int
    since: float
    expires_at: float
    """When nobody can ask for its answer any more."""


class Answered(NamedTuple):
    """An answer that was handed over, or an error that stands in."""

    asked: str
    """The id of what is answered."""
    run_id: int
    group_id: str
    """As the node says."""
    error: str | None


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
    """Tasks, or messages, pushed."""
    answered: int
    """Answers that were collected, errors included."""
    errors: int
    missing: int
    """Answers that are waited for still."""
    waiting_for: Sequence[Missing]
    """Those that were asked first."""

    def __add__(self, other: RoundView) -> RoundView:
        """Put together what was asked here and what elsewhere."""
        ends = [view.ended for view in (self, other) if view.ended is not None]
        missing = sorted((*self.waiting_for, *other.waiting_for), key=attrgetter("since"))
        return attrs.evolve(
            self,
            began=min(self.began, other.began),
            ended=max(ends) if len(ends) == 2 else None,
            asked=self.asked + other.asked,
            answered=self.answered + other.answered,
            errors=self.errors + other.errors,
            missing=self.missing + other.missing,
            waiting_for=missing[:MOST_MISSING],
        )

    def goes_on_at(self, moment: float) -> bool:
        """Say whether what is asked at a moment, in Unix seconds, belongs to it."""
        return _goes_on(self.ended, moment)


def _goes_on(ended: float | None, moment: float) -> bool:
    return ended is None or moment < ended + _PAUSE


def together(views: Iterable[RoundView]) -> list[RoundView]:
    """Put together what several processes know of rounds; the oldest first."""
    rounds: list[RoundView] = []
    latest: dict[tuple[int, str, str], int] = {}
    for view in sorted(views, key=attrgetter("began")):
        key = view.run_id, view.group_id, view.kind
        at = latest.get(key)
        if at is not None and rounds[at].goes_on_at(view.began):
            rounds[at] += view
        else:
            latest[key] = len(rounds)
            rounds.append(view)
    return rounds[-MOST_ROUNDS:]


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
    missing: dict[str, Asked] = attrs.field(factory=dict)
    """By their ids, in the order in which they were asked."""
    told_since: float = -math.inf
    """When the node was asked of which the log spoke last."""
    next_line: float = 0.0
    """After how many seconds from then it speaks again."""

    def first_missing(self, most: int) -> Sequence[Missing]:
        """Give nodes that are missing, those that were asked first."""
        first = islice(self.missing.values(), most)
        return [Missing(asked.node_id, asked.since) for asked in first]

    def answer(self, answer: Answered, now: float) -> None:
        """Note that an answer was handed over."""
        self.answered += 1
        self.errors += answer.error is not None
        self.settle(answer.asked, now)

    def settle(self, asked_id: str, now: float) -> None:
        """Wait for an answer no longer."""
        del self.missing[asked_id]
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

    It outlives the API: a round goes on when that is served again.
    """

    def __init__(
        self,
        clock: Clock = time.time,
        *,
        work: str = "task",
        runs: Callable[[], Container[int]] | None = None,
    ) -> None:
        """Call by `work` what is asked.

        `runs` gives those that are not over, where that is known: in others nobody is waited for.
        """
        self._now = clock
        self._runs = runs
        self._rounds: dict[_Round, None] = {}  # the oldest first
        self._latest: dict[tuple[int, str, str], _Round] = {}
        self._asked: dict[str, _Round] = {}  # where those belong that are waited for
        self._progress = Progress(work)
        self._unknown: list[Answered] | None = None
        self._throttle = Throttle(_log, burst=_MOST_LINES)

    def sent(self, sent: Iterable[Asked]) -> None:
        """Note what nodes were asked."""
        for asked in sent:
            if asked.id in self._asked:
                continue  # whoever pushed it has not had the answer, and pushes it again
            found = self._round_of(asked)
            found.asked += 1
            found.ended = None
            found.missing[asked.id] = asked
            self._asked[asked.id] = found
            self._progress.sent(found.run_id, found.group_id, found.kind, asked.node_id)

    def collected(self, answers: Iterable[Answered]) -> None:
        """Note answers that were handed over."""
        now = self._now()
        for answer in answers:
            # A node may say what it likes about the round; where it was asked is known here.
            found = self._asked.pop(answer.asked, None)
            group_id = shorten(answer.group_id, _LONGEST_WORD) if found is None else found.group_id
            self._progress.collected(answer.run_id, group_id, answer.error)
            if found is not None:
                found.answer(answer, now)
            elif self._unknown is not None:
                self._unknown.append(answer)

    def share(self) -> None:
        """Take notes for other processes, which may have asked what is answered here."""
        self._unknown = []

    def take(self) -> Sequence[Answered] | None:
        """Give the answers to what was not asked here, since the last time; None: there are none.

        Some of them may have been handed over before.
        """
        unknown = self._unknown
        if unknown:
            self._unknown = []
        return unknown or None

    def hear(self, told: Sequence[Answered]) -> None:
        """Note answers that another process has handed over, and has logged."""
        now = self._now()
        for answer in told:
            if (found := self._asked.pop(answer.asked, None)) is not None:
                found.answer(answer, now)

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

    def _round_of(self, asked: Asked) -> _Round:
        group_id, kind = (shorten(word, _LONGEST_WORD) for word in (asked.group_id, asked.kind))
        key = (asked.run_id, group_id, kind)
        latest = self._latest.get(key)
        now = self._now()
        if latest is not None and _goes_on(latest.ended, now):
            return latest
        if len(self._rounds) >= MOST_ROUNDS:
            self._forget(next(iter(self._rounds)))
        latest = self._latest[key] = _Round(*key, began=now)
        self._rounds[latest] = None
        return latest

    def _forget(self, old: _Round) -> None:
        del self._rounds[old]
        for asked_id in old.missing:
            del self._asked[asked_id]
        key = (old.run_id, old.group_id, old.kind)
        if self._latest[key] is old:
            del self._latest[key]

    def _look(self) -> None:
        now = self._now()
        self._give_up(now)
        for each in self._rounds:
            if each.is_worth_a_line(now):
                self._tell(each, now)

    def _give_up(self, now: float) -> None:
        """Wait no more for what nobody asks for."""
        runs = None if self._runs is None else self._runs()
        for each in self._rounds:
            over = runs is not None and each.run_id not in runs
            gone = [id for id, asked in each.missing.items() if over or asked.expires_at <= now]
            for asked_id in gone:
                del self._asked[asked_id]
                each.settle(asked_id, now)

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
