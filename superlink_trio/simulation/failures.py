"""Tasks that failed, as the log has them: each fault once, then counts, and a sum for every run.

A mistake in an app fails every task alike. So the traceback of a fault is logged when it first
comes in a run, what comes again is counted, and when the run is quiet a line sums it up: no driver
says that its run is over.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio

from superlink_trio.logs.throttle import shorten
from superlink_trio.logs.wording import tallied
from superlink_trio.simulation.backend import Node
from superlink_trio.wire.tasks import Task

_log = logging.getLogger(__name__)

_INTERVAL = 5.0
"""Seconds between two looks at the runs that have failures."""

_QUIET = 10.0
"""Seconds without a task after which a run is summed up."""

_REPEATS = 30.0
"""Seconds between two lines about what comes again in a run."""

_MAX_RUNS = 1000
"""A run more than that forgets the one that had a task longest ago."""

_MAX_FAULTS = 20
"""Faults of a run that are told apart."""

_OTHERS = "other failures"

_LONGEST_FAULT = 200
_LONGEST_REPORT = 20_000
"""Characters of a traceback; what a driver sent may be in it."""


@attrs.frozen
class Failure:
    """Why a task failed: `fault` is the same for all that are the same, `reason` the driver's."""

    fault: str
    reason: str
    report: str = ""
    """The traceback, if there is one."""


@attrs.define(eq=False)
class _Run:
    run_id: int
    tasks: int = 0
    faults: Counter[str] = attrs.field(factory=Counter)
    repeats: Counter[str] = attrs.field(factory=Counter)
    """What came again since a line said so."""
    told_at: float = 0.0
    used_at: float = 0.0
    under_way: int = 0


class Failures:
    """Counts the tasks of every run, and logs how they fail."""

    def __init__(self) -> None:
        self._runs: OrderedDict[int, _Run] = OrderedDict()
        # Those with failures that no sum has told yet.
        self._open: dict[int, _Run] = {}
        self._news = trio.Event()

    @contextmanager
    def under_way(self, task: Task) -> Iterator[None]:
        """Take a task's run for one that is not over inside the block."""
        run = self._use(task.run_id)
        run.under_way += 1
        try:
            yield
        finally:
            run.under_way -= 1
            run.used_at = trio.current_time()

    def count(self, node: Node, task: Task, failure: Failure | None) -> None:
        """Count a task that was answered; log its failure, if it is the first of its kind."""
        run = self._use(task.run_id)
        run.tasks += 1
        if failure is None:
            return
        fault = shorten(failure.fault, _LONGEST_FAULT)
        if fault not in run.faults and len(run.faults) >= _MAX_FAULTS:
            fault = _OTHERS
        if fault in run.faults:
            run.repeats[fault] += 1
        else:
            _log_first(node, task, failure)
        run.faults[fault] += 1
        if run.run_id not in self._open:
            run.told_at = trio.current_time()
            self._open[run.run_id] = run
            self._news.set()

    async def report(self) -> None:
        """Log what comes again, and the sums, until cancelled; then those of all runs."""
        try:
            while True:
                await self._news.wait()
                self._news = trio.Event()
                while self._open:
                    await trio.sleep(_INTERVAL)
                    self._look(trio.current_time())
        finally:
            for run in list(self._open.values()):
                self._sum_up(run)

    def _look(self, now: float) -> None:
        for run in list(self._open.values()):
            if not run.under_way and now - run.used_at >= _QUIET:
                self._sum_up(run)
            elif run.repeats and now - run.told_at >= _REPEATS:
                _log_repeats(run)
                run.repeats.clear()
                run.told_at = now

    def _sum_up(self, run: _Run) -> None:
        del self._open[run.run_id]
        run.repeats.clear()
        _log_sum(run)

    def _use(self, run_id: int) -> _Run:
        run = self._runs.setdefault(run_id, _Run(run_id))
        run.used_at = trio.current_time()
        self._runs.move_to_end(run_id)
        if len(self._runs) > _MAX_RUNS:
            self._runs.popitem(last=False)
        return run


def _log_first(node: Node, task: Task, failure: Failure) -> None:
    report = {"exception": shorten(failure.report, _LONGEST_REPORT)} if failure.report else {}
    _log.error(
        "The app failed on node %d (partition %d): %s",
        *(node.node_id, node.partition_id, shorten(failure.reason)),
        extra={
            "node_id": node.node_id,
            "partition_id": node.partition_id,
            "run_id": task.run_id,
            "round": task.group_id,
            **report,
        },
    )


def _log_repeats(run: _Run) -> None:
    times = run.repeats.total()
    _log.warning(
        "Run %d: failed the same %d times more: %s",
        *(run.run_id, times, tallied(run.repeats)),
        extra={"run_id": run.run_id, "failures": times},
    )


def _log_sum(run: _Run) -> None:
    failed = run.faults.total()
    _log.warning(
        "%d of %d tasks of run %d failed: %s",
        *(failed, run.tasks, run.run_id, tallied(run.faults)),
        extra={"run_id": run.run_id, "tasks": run.tasks, "failures": failed},
    )
