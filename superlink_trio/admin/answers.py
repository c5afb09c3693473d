"""What a worker tells the process that serves operators for it."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import attrs
import trio

from superlink_trio.admin.sources import OwnSources


class Topic(enum.Enum):
    """What is asked; see `Sources`."""

    CENSUS = "census"
    FIGURES = "figures"
    SEEN = "seen"
    TASKS = "tasks"


@attrs.frozen
class Question:
    """Something to be told."""

    topic: Topic
    answer: Callable[[object], None]


Questions: TypeAlias = trio.MemoryReceiveChannel[Question]


@attrs.frozen
class AnswerService:
    """Answers questions: an admin surface without a port."""

    sources: OwnSources
    questions: Questions

    async def __call__(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """Serve until `stopping`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.sources.measure)
            nursery.start_soon(self._take, nursery)
            task_status.started()
            await stopping.wait()
            nursery.cancel_scope.cancel()

    async def _take(self, nursery: trio.Nursery) -> None:
        async for question in self.questions:
            nursery.start_soon(self._answer, question)

    async def _answer(self, question: Question) -> None:
        ask: Mapping[Topic, Callable[[], Awaitable[object]]] = {
            Topic.CENSUS: self.sources.census,
            Topic.FIGURES: self.sources.figures,
            Topic.SEEN: self.sources.seen,
            Topic.TASKS: self.sources.tasks,
        }
        question.answer(await ask[question.topic]())
