"""What moves, as the log has it: a line a run and second, however many tasks that is."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import attrs
import trio

from superlink_trio.logs.throttle import Throttle, shorten
from superlink_trio.logs.wording import counted, tallied
from superlink_trio.wire.tasks import Task, TaskError

_log = logging.getLogger(__name__)

_INTERVAL = 1.0  # seconds between two lines about one run
_MOST_LINES = 600  # a minute, about all of them
_LONGEST_WORD = 40  # characters of a kind of task


@attrs.define
class _Moved:
    sent: Counter[str] = attrs.field(factory=Counter)
    nodes: set[int] = attrs.field(factory=set)
    answers: int = 0
    errors: Counter[str] = attrs.field(factory=Counter)

    def __str__(self) -> str:
        parts = []
        if self.sent:
            kinds = " and ".join(f"{count} {kind}" for kind, count in sorted(self.sent.items()))
            tasks = "task" if self.sent.total() == 1 else "tasks"
            parts.append(f"{kinds} {tasks} sent to {counted(len(self.nodes), 'node')}")
        if self.answers:
            parts.append(f"{counted(self.answers, 'answer')} collected")
        if self.errors:
            errors = counted(self.errors.total(), "error")
            parts.append(f"{errors} among them: {tallied(self.errors)}")
        return ", ".join(parts)


class Progress:
    """Counts the tasks and answers of every run, and logs what has moved."""

    def __init__(self) -> None:
        self._runs: dict[int, _Moved] = {}
        self._news = trio.Event()
        self._throttle = Throttle(_log, burst=_MOST_LINES)

    def sent(self, tasks: Sequence[Task]) -> None:
        """Count tasks that a driver pushed."""
        for task in tasks:
            moved = self._run(task.run_id)
            moved.sent[shorten(task.task_type, _LONGEST_WORD)] += 1
            moved.nodes.add(task.consumer)

    def collected(self, answers: Sequence[Task]) -> None:
        """Count answers that reached their driver."""
        for answer in answers:
            moved = self._run(answer.run_id)
            moved.answers += 1
            if isinstance(answer.content, TaskError):
                moved.errors[shorten(answer.content.reason)] += 1

    async def report(self) -> None:
        """Log what has moved, until cancelled; the last of it then."""
        try:
            while True:
                await self._news.wait()
                await trio.sleep(_INTERVAL)
                self._tell()
        finally:
            self._tell()

    def _run(self, run_id: int) -> _Moved:
        self._news.set()
        return self._runs.setdefault(run_id, _Moved())

    def _tell(self) -> None:
        runs, self._runs = self._runs, {}
        self._news = trio.Event()
        for run_id, moved in runs.items():
            self._throttle.log(
                logging.INFO,
                None,
                "Run %d: %s",
                *(run_id, moved),
                extra={
                    "run_id": run_id,
                    "tasks": moved.sent.total(),
                    "nodes": len(moved.nodes),
                    "answers": moved.answers,
                    "errors": moved.errors.total(),
                },
            )
