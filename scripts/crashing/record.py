"""What was acknowledged, what came of it, and what of that must not be."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import attrs

UNCERTAIN = 5.0
"""Seconds: what left so shortly before a kill may not have arrived, and is given once more."""


@attrs.define(eq=False)
class Life:
    """One life of a process, or of several behind one address."""

    addresses: Mapping[str, str]
    """By side: "driver", "fleet", or both."""
    killed_at: float = math.inf


@attrs.frozen
class Given:
    """An answer that a driver got."""

    answer_id: str
    life: Life
    """Who gave it."""
    when: float = attrs.field(factory=time.monotonic)

    @property
    def may_come_again(self) -> bool:
        """Whether it left so shortly before a kill that it is kept."""
        return self.life.killed_at - self.when < UNCERTAIN

    @property
    def age(self) -> str:
        """Say how long ago it left, and how long before a kill."""
        ago, before = time.monotonic() - self.when, self.life.killed_at - self.when
        return f"{ago:.1f} s later, and {before:.1f} s before a kill"


@attrs.define
class Record:
    """The books of all clients; each entry is made when a call was answered, and not before."""

    runs: set[int] = attrs.field(factory=set)
    nodes: set[int] = attrs.field(factory=set)
    asked: dict[str, int] = attrs.field(factory=dict)
    """The node of each task that a driver was told is stored."""
    handed: dict[str, int] = attrs.field(factory=dict)
    """How often each task was handed out."""
    stored: dict[str, str] = attrs.field(factory=dict)
    """The answer to each task, by its id, that a node was told is stored."""
    given: dict[str, Given] = attrs.field(factory=dict)
    """The answer to each task that its driver got."""
    kills: int = 0
    faults: list[str] = attrs.field(factory=list)

    def hand(self, task_id: str, node_id: int) -> None:
        """A node was handed a task."""
        self.handed[task_id] = self.handed.get(task_id, 0) + 1
        if self.asked.get(task_id, node_id) != node_id:
            self.faults.append(f"{task_id} was handed to another node")
        if task_id in self.stored:
            self.faults.append(f"{task_id} was handed out again: its acknowledged answer is lost")

    def store(self, task_id: str, answer_id: str | None, attempts: int) -> None:
        """A node was told what became of its answer: its id, None where it was not taken.

        That is right only where an earlier attempt was heard, and the driver has got the answer.
        """
        if answer_id is not None:
            self.stored[task_id] = answer_id
        elif attempts == 1:
            self.faults.append(f"the answer to {task_id} was not taken")

    def give(self, task_id: str, answer_id: str, life: Life) -> None:
        """A driver got an answer that it had asked for, and had not got yet."""
        self.given[task_id] = Given(answer_id, life)
        if self.stored.get(task_id, answer_id) != answer_id:
            self.faults.append(f"the answer to {task_id} is not the one that was acknowledged")

    def give_again(self, task_id: str, answer_id: str, life: Life) -> None:
        """A driver asked again for what it had got, and got it again."""
        first = self.given[task_id]
        if life is first.life or not first.may_come_again:
            self.faults.append(f"{task_id} was answered twice, {first.age}")
        elif answer_id != first.answer_id:
            self.faults.append(f"{task_id} was answered twice, and not by the same answer")

    def end(self) -> None:
        """No driver waits any more: everything was answered."""
        self.faults += [f"{task_id} is lost" for task_id in self.asked.keys() - self.given.keys()]

    def close(self) -> None:
        """Whatever else is there was asked for."""
        self.faults += [
            f"the acknowledged answer to {task_id} is lost"
            for task_id in self.stored.keys() - self.given.keys()
        ]

    def __str__(self) -> str:
        again = sum(self.handed.values()) - len(self.handed)
        return (
            f"{self.kills} kills; {len(self.runs)} runs, {len(self.nodes)} nodes, "
            f"{len(self.asked)} tasks and {len(self.stored)} answers acknowledged, "
            f"{len(self.given)} answers collected; {again} tasks handed to their node again; "
            f"{len(self.faults)} faults"
        )
