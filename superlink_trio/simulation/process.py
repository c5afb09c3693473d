"""The `process` backend: worker processes on this machine, and nothing else to install.

A worker that dies fails the one job it ran, and the next job that finds none free starts another. A
job that is cancelled takes its worker with it, and what the app has started: there is no other way
to end code that is not asked.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from superlink_trio.simulation import children, frames, workplace
from superlink_trio.simulation.backend import (
    App,
    AppNotLoaded,
    Backend,
    BackendDied,
    Job,
    Outcome,
    WorkerDied,
)
from superlink_trio.simulation.parcels import Answer
from superlink_trio.simulation.shares import Shares, open_shares
from superlink_trio.simulation.worker import Manners
from superlink_trio.simulation.workplace import GRACE, Request, Start


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
    async with open_shares() as shares:
        backend = _ProcessBackend(Start(app, settings.manners), settings.workers, shares)
        try:
            await backend.start()
            yield backend
        finally:
            await backend.close()


class _Worker:
    """A process that does one request at a time."""

    def __init__(self, process: trio.Process, stream: trio.SocketStream) -> None:
        self._process = process
        self._stream = stream
        self._receiver = frames.Receiver(stream)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    async def ask(self, request: Request) -> Any:
        """Have a request done. Whatever keeps it from being done, the worker has ended then.

        Raises WorkerDied.
        """
        try:
            await self._stream.send_all(frames.pack(request))
            return await self._receiver.receive()
        except BaseException as error:
            await self.end(0.0)
            if isinstance(error, EOFError | trio.BrokenResourceError):
                raise WorkerDied(_obituary(self._process.returncode)) from None
            raise

    async def end(self, grace: float) -> None:
        """End it, and what its app has started; by itself it may within `grace` seconds."""
        await children.end(self._process, self._stream, grace)


class _ProcessBackend(Backend):
    def __init__(self, first: Start, workers: int, shares: Shares) -> None:
        self._first = first
        self._capacity = workers
        self._shares = shares
        self._free = trio.CapacityLimiter(workers)
        self._idle: list[_Worker] = []
        self._running: set[trio.CancelScope] = set()
        self._closed = False
        self._quiet = trio.Event()

    @property
    def capacity(self) -> int:
        return self._capacity

    async def start(self) -> None:
        """Start every worker. Raises AppNotLoaded."""
        faults: list[str] = []

        async def start_one() -> None:
            try:
                worker, fault = await self._start_worker()
            except WorkerDied as error:
                faults.append(f"the process that loads it is gone: {error}")
            else:
                self._idle.append(worker)
                if fault is not None:
                    faults.append(fault)

        async with trio.open_nursery() as nursery:
            for _ in range(self.capacity):
                nursery.start_soon(start_one)
        if faults:
            raise AppNotLoaded(faults[0])

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
                    self._quiet.set()
        raise BackendDied("the process backend was closed")

    async def _run(self, job: Job) -> Outcome:
        async with self._free, self._shares.parcel(job) as parcel:
            worker = await self._idle_worker()
            answer: Answer = await worker.ask(parcel)
            self._idle.append(worker)
            try:
                return await self._shares.outcome(answer)
            except (OSError, MemoryError) as error:
                raise WorkerDied(f"what the worker answered cannot be read: {error}") from error

    async def _idle_worker(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            await worker.end(0.0)
        # An app that can no longer be loaded is told as the outcome of each job.
        worker, _ = await self._start_worker()
        return worker

    async def _start_worker(self) -> tuple[_Worker, str | None]:
        """Give a new worker, and why it cannot load the app. Raises WorkerDied."""
        try:
            worker = _Worker(*await children.start(workplace.command))
        except (OSError, MemoryError) as error:
            raise WorkerDied(f"no worker can be started: {error}") from error
        fault: str | None = await worker.ask(self._first)
        return worker, fault

    async def close(self) -> None:
        """Take no job any more, and end the workers; those at work without ado."""
        self._closed = True
        for scope in self._running:
            scope.cancel()
        if self._running:
            with trio.CancelScope(shield=True):
                await self._quiet.wait()
        async with trio.open_nursery() as nursery:
            for worker in self._idle:
                nursery.start_soon(worker.end, GRACE)


def _obituary(status: int | None) -> str:
    if status is None:
        return "the worker process does not end"
    if status < 0:
        return f"the worker process was ended by {signal.Signals(-status).name}"
    return f"the worker process ended with status {status}"
