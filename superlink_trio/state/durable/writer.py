"""Group commit: steps that wait while one commit is under way share the next.

A commit costs a sync of the disk, whatever it holds. So nobody commits for himself: under load
every commit carries many steps, and an idle store answers a single one at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import attrs
import outcome
import trio

from superlink_trio.state.durable.engine import Committed, Committer, Locked
from superlink_trio.state.durable.heartbeats import Heartbeats
from superlink_trio.state.interface import StateUnavailable

Result = TypeVar("Result")
Tx = TypeVar("Tx")

# Steps in one commit: the first of them should not have to wait for too many others.
_MOST_STEPS = 256

# A commit that takes longer is told of, in seconds of the world: whoever calls waits for it.
_SLOW, _LOOK_EVERY = 10.0, 2.0

_log = logging.getLogger(__name__)


@attrs.define(eq=False)
class _Job(Generic[Tx]):
    step: Callable[[Tx], Any]
    durable: bool
    patience: float
    task: trio.lowlevel.Task = attrs.field(factory=trio.lowlevel.current_task)
    # A lock of another program knows nothing of Trio's clock.
    arrived: float = attrs.field(factory=time.monotonic)
    cancelled: trio.lowlevel.RaiseCancelT | None = None

    def fail(self, error: StateUnavailable) -> None:
        # Each task gets an exception of its own: their tracebacks differ.
        mine = StateUnavailable(str(error))
        mine.__cause__ = error.__cause__
        trio.lowlevel.reschedule(self.task, outcome.Error(mine))


class Writer(Generic[Tx]):
    """Performs steps, in the order of their arrival, and notifies of what they changed.

    `listener` is called for every commit, in order, and before any task goes on that waited for it:
    so what it notes about two steps is never noted in the wrong order.
    """

    def __init__(
        self,
        committer: Committer[Tx],
        heartbeats: Heartbeats,
        listener: Callable[[Committed], None],
        patience: float,
    ) -> None:
        self._committer = committer
        self._heartbeats = heartbeats
        self._listener = listener
        self._patience = patience
        self._waiting: dict[_Job[Tx], None] = {}
        self._arrived = trio.Event()
        self._open = False
        self._closing = False
        self._fault = ""
        # When the commit under way was begun, and whether the log has told that it takes long.
        self._began: float | None = None
        self._slow = False
        self.limiter = trio.CapacityLimiter(1)
        self.commits = 0
        self.steps = 0

    async def do(
        self, step: Callable[[Tx], Result], *, durable: bool = True, patience: float | None = None
    ) -> Result:
        """Perform a step and give its result, once it is committed.

        Without `durable` a crash of the machine, but not one of this process, may undo it.
        `patience`: seconds for which another program's lock is waited for, where it is not the
        store's. When the store closes nobody waits for one.
        Cancelled before its commit begins it does nothing; afterwards it gives its result all
        the same: what was taken is never lost on the way to who took it.
        Raises StateUnavailable, or what the step raises; nothing was changed then.
        """
        if not self._open:
            raise StateUnavailable("The database is not open.")
        await trio.lowlevel.checkpoint_if_cancelled()
        job = _Job(step, durable, self._patience if patience is None else patience)
        self._waiting[job] = None
        self._arrived.set()

        def withdraw(raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            if job not in self._waiting:
                job.cancelled = raise_cancel
                return trio.lowlevel.Abort.FAILED
            del self._waiting[job]
            return trio.lowlevel.Abort.SUCCEEDED

        result: Result = await trio.lowlevel.wait_task_rescheduled(withdraw)
        return result

    @property
    def commit_age(self) -> float:
        """For how long the commit under way has been, in seconds; 0: there is none."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    async def watch(self, slow: float = _SLOW) -> None:
        """Log of commits that take long, which neither fail nor end, until cancelled."""
        while True:
            await trio.sleep(_LOOK_EVERY)
            if self.commit_age >= slow and not self._slow:
                self._slow = True
                _log.warning(
                    "A commit has taken %.0f s so far: the database waits for another program's "
                    "lock, its disk or a synchronous standby, and calls wait with it",
                    self.commit_age,
                )

    def close(self) -> None:
        """Take no more steps; `serve` returns when those that wait are done."""
        self._open = False
        self._closing = True
        self._arrived.set()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit until closed."""
        self._open, self._closing = True, False
        task_status.started()
        try:
            while self._waiting or not self._closing:
                if not self._waiting:
                    self._arrived = trio.Event()
                    await self._arrived.wait()
                await trio.lowlevel.checkpoint_if_cancelled()
                with trio.CancelScope(shield=True):
                    await self._commit()
        finally:
            self._open = False
            for job in self._waiting:
                job.fail(StateUnavailable("The database was closed."))
            self._waiting.clear()

    async def _commit(self) -> None:
        jobs = list(self._waiting)[:_MOST_STEPS]
        for job in jobs:
            del self._waiting[job]
        self._began = time.monotonic()
        try:
            with self._heartbeats.written() as heartbeats:
                committed = await trio.to_thread.run_sync(
                    lambda: self._committer.commit(
                        [job.step for job in jobs],
                        heartbeats,
                        durable=any(job.durable for job in jobs),
                    ),
                    limiter=self.limiter,
                )
        except Locked as error:
            self._postpone(jobs, error)
        except StateUnavailable as error:
            self._log_fault(str(error))
            for job in jobs:
                job.fail(error)
        except BaseException:
            for job in jobs:
                job.fail(StateUnavailable("The database failed; the log says why."))
            raise
        else:
            self._log_faults(committed)
            self.commits += 1
            self.steps += len(jobs)
            self._listener(committed)
            for job, performed in zip(jobs, committed.performed, strict=True):
                trio.lowlevel.reschedule(job.task, performed.result)
        finally:
            self._ended()

    def _ended(self) -> None:
        if self._slow:
            _log.warning("The commit that took long has ended, after %.0f s", self.commit_age)
        self._began, self._slow = None, False

    def _postpone(self, jobs: Sequence[_Job[Tx]], error: Locked) -> None:
        """Let jobs wait for the next commit, except for those that have waited long enough."""
        self._waiting = {**dict.fromkeys(jobs), **self._waiting}
        for job in tuple(self._waiting):
            if job.cancelled is not None:
                trio.lowlevel.reschedule(job.task, outcome.capture(job.cancelled))
            elif self._closing or time.monotonic() - job.arrived >= job.patience:
                if job.patience:
                    self._log_fault(str(error))
                job.fail(error)
            else:
                continue
            del self._waiting[job]

    def _log_faults(self, committed: Committed) -> None:
        faults = [
            str(performed.result.error)
            for performed in committed.performed
            if isinstance(performed.result, outcome.Error)
            and isinstance(performed.result.error, StateUnavailable)
        ]
        for fault in faults:
            self._log_fault(fault)
        if self._fault and not faults:
            _log.info("The database works again")
            self._fault = ""

    def _log_fault(self, fault: str) -> None:
        if fault != self._fault:
            _log.error("%s. Calls are refused until then.", fault)
            self._fault = fault
