"""The `process` backend: worker processes on this machine, and nothing else to install.

Workers are trio-parallel's. A worker that dies fails the one job it ran, and the next job that
finds none free starts another. A job that is cancelled takes its worker with it: there is no other
way to end code that is not asked.
"""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from multiprocessing.process import BaseProcess
from typing import Any

import attrs
import trio
import trio_parallel

from superlink_trio.fleet.simulation import parcels, worker
from superlink_trio.fleet.simulation.backend import (
    App,
    AppNotLoaded,
    Backend,
    BackendDied,
    Job,
    Outcome,
    WorkerDied,
)
from superlink_trio.fleet.simulation.shares import Shares, open_shares
from superlink_trio.fleet.simulation.worker import Manners

# What an idle worker gets to end by itself; an app may have something to put away.
_GRACE = 2.0

_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class ProcessSettings:
    """How many workers there are, and how they behave."""

    workers: int
    manners: Manners = attrs.field(factory=Manners)

    @classmethod
    def read(cls, config: Mapping[str, object]) -> ProcessSettings:
        """Read the settings of `--backend-config`.

        Honoured are `client_resources` (`num_cpus`, the share of this machine's CPUs that a
        worker takes), `tensorflow`, `mute_logging` and `silent`.

        Raises ValueError, naming everything that cannot be used.
        """
        faults = [
            f"{key} is nothing the process backend knows"
            + (": it is Ray's, use --backend ray" if key in ("init_args", "actor") else "")
            for key in config
            if key not in ("client_resources", "tensorflow", "mute_logging", "silent")
        ]
        workers, told = _count_workers(config.get("client_resources", {}))
        if faults := [*faults, *told]:
            raise ValueError("; ".join(faults))
        return cls(
            workers=workers,
            manners=Manners(
                muted=bool(config.get("mute_logging")),
                silent=bool(config.get("silent")),
                tensorflow=bool(config.get("tensorflow")),
            ),
        )


def _count_workers(resources: object) -> tuple[int, list[str]]:
    """Give how many workers fit on this machine, and what is wrong with what they need."""
    if not isinstance(resources, Mapping):
        return 1, ["client_resources must be an object"]
    faults = [
        f"client_resources.{key} is nothing the process backend knows"
        for key in resources
        if key not in ("num_cpus", "num_gpus")
    ]
    cpus, gpus = resources.get("num_cpus", 1), resources.get("num_gpus", 0)
    if not _is_number(gpus) or gpus < 0:
        faults.append("client_resources.num_gpus must be a number, not below 0")
    elif gpus > 0:
        faults.append(
            f"client_resources.num_gpus is {gpus}, but the process backend does not share out "
            "GPUs: use --backend ray"
        )
    if not _is_number(cpus) or cpus <= 0:
        return 1, [*faults, "client_resources.num_cpus must be a number above 0"]
    return max(1, int(usable_cpus() / cpus)), faults


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def usable_cpus() -> int:
    """Give how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@asynccontextmanager
async def open_process_backend(app: App, config: Mapping[str, object]) -> AsyncIterator[Backend]:
    """Give the block a backend whose workers have loaded the app.

    Leaving the block ends all of them; who still waits for a job then gets BackendDied.

    Raises AppNotLoaded, and ValueError for settings that cannot be used.
    """
    settings = ProcessSettings.read(config)
    async with open_shares() as shares, _open_workers() as workers:
        backend = _ProcessBackend(app, settings, workers, shares)
        try:
            await backend.start()
            yield backend
        finally:
            await backend.close()


@asynccontextmanager
async def _open_workers() -> AsyncIterator[trio_parallel.WorkerContext]:
    closing = AsyncExitStack()
    workers = await closing.enter_async_context(
        trio_parallel.open_worker_context(idle_timeout=math.inf, grace_period=_GRACE)
    )
    try:
        yield workers
    finally:
        # Closed by hand: how a worker ended is no reason to hide an error of the block, or to fail.
        try:
            await closing.aclose()
        except trio_parallel.BrokenWorkerError as error:
            _log.info("Not every worker of the simulation ended well: %s", error.args[0])


class _ProcessBackend(Backend):
    def __init__(
        self,
        app: App,
        settings: ProcessSettings,
        workers: trio_parallel.WorkerContext,
        shares: Shares,
    ) -> None:
        self._app = app
        self._settings = settings
        self._workers = workers
        self._shares = shares
        self._free = trio.CapacityLimiter(settings.workers)
        self._running: set[trio.CancelScope] = set()
        self._closed = False
        self._idle = trio.Event()

    @property
    def capacity(self) -> int:
        return self._settings.workers

    async def start(self) -> None:
        """Start every worker. Raises AppNotLoaded."""
        faults: list[AppNotLoaded] = []

        async def start_one() -> None:
            try:
                await self._call(worker.start, self._app, self._settings.manners)
            except AppNotLoaded as error:
                faults.append(error)
            except WorkerDied as error:
                faults.append(AppNotLoaded(f"the process that loads it is gone: {error}"))

        # All at once, so that none of them is free for the next one's call.
        async with trio.open_nursery() as nursery:
            for _ in range(self.capacity):
                nursery.start_soon(start_one)
        if faults:
            raise faults[0]

    async def run(self, job: Job) -> Outcome:
        if self._closed:
            raise BackendDied("the process backend is closed")
        with trio.CancelScope() as scope:
            self._running.add(scope)
            try:
                return await self._run(job)
            finally:
                self._running.discard(scope)
                if self._closed and not self._running:
                    self._idle.set()
        raise BackendDied("the process backend was closed")

    async def _run(self, job: Job) -> Outcome:
        async with self._free, self._shares.parcel(job) as parcel:
            answer = await self._call(parcels.run, self._app, self._settings.manners, parcel)
            return await self._shares.outcome(answer)

    async def _call(self, function: Any, *arguments: Any) -> Any:
        try:
            return await self._workers.run_sync(
                function,
                *arguments,
                # 1.3's kill_on_cancel by the name that 1.2 knows as well.
                cancellable=True,
                # A job waits for its turn before it takes up memory, not only here.
                limiter=nullcontext(),
            )
        except trio_parallel.BrokenWorkerError as error:
            raise WorkerDied(_obituary(error)) from error
        except (OSError, MemoryError) as error:
            # No process can be started, or one of the job's files is gone.
            raise WorkerDied(f"no worker could do the job: {error}") from error

    async def close(self) -> None:
        """Take no job any more, and end those that are under way."""
        self._closed = True
        for scope in self._running:
            scope.cancel()
        if self._running:
            # trio-parallel 1.2 fails if it is closed before. Workers are killed: this is soon over.
            with trio.CancelScope(shield=True):
                await self._idle.wait()


def _obituary(error: trio_parallel.BrokenWorkerError) -> str:
    process = error.args[-1]
    status = process.exitcode if isinstance(process, BaseProcess) else None
    if status is None:
        return "the worker process ended"
    if status < 0:
        return f"the worker process was ended by {signal.Signals(-status).name}"
    return f"the worker process ended with status {status}"
