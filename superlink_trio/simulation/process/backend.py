"""The `process` backend: worker processes on this machine, and nothing else to install.

A worker that dies fails the one job it ran, and the next job that finds none free starts another. A
job that is cancelled takes its worker with it, and what the app has started: there is no other way
to end code that is not asked.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from superlink_trio.processes import frames
from superlink_trio.processes.children import ChildProcess, python
from superlink_trio.simulation.backend import (
    App,
    AppNotLoaded,
    Backend,
    BackendDied,
    Job,
    Outcome,
    WorkerDied,
)
from superlink_trio.simulation.beside import beside, told_if_slow
from superlink_trio.simulation.parcels import Answer
from superlink_trio.simulation.process import child
from superlink_trio.simulation.process.child import GRACE, Request, Start
from superlink_trio.simulation.process.settings import ProcessSettings
from superlink_trio.simulation.shares import Shares, open_shares

_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_process_backend(app: App, config: Mapping[str, object]) -> AsyncIterator[Backend]:
    """Give the block a backend whose workers have loaded the app.

    Leaving the block ends all of them; who still waits for a job then gets BackendDied.

    Raises AppNotLoaded, and ValueError for settings that cannot be used.
    """
    settings = ProcessSettings.read(config)
    async with open_shares() as shares, beside() as nursery:
        first = Start(app, settings.worker)
        backend = _ProcessBackend(first, settings.workers, shares, nursery)
        try:
            async with told_if_slow(_log, f"Loading {app}"):
                await backend.start()
            yield backend
        finally:
            await backend.close()


class _Worker:
    """A process that does one request at a time."""

    def __init__(self, process: ChildProcess) -> None:
        self.process = process
        self._receiver = frames.Receiver(process.stream)

    async def ask(self, request: Request) -> Any:
        """Have a request done. Whatever keeps it from being done, the worker has ended then.

        Raises WorkerDied.
        """
        try:
            await self.process.stream.send_all(frames.pack(request))
            return await self._receiver.receive()
        except BaseException as error:
            await self.process.end(0.0)
            if isinstance(error, EOFError | trio.BrokenResourceError):
                how = self.process.ending or "does not end"
                raise WorkerDied(f"the worker process {how}") from None
            raise


class _ProcessBackend(Backend):
    def __init__(self, first: Start, workers: int, shares: Shares, nursery: trio.Nursery) -> None:
        self._first = first
        self._capacity = workers
        self._shares = shares
        self._nursery = nursery
        self._free = trio.CapacityLimiter(workers)
        self._idle: list[_Worker] = []
        self._running: set[trio.CancelScope] = set()
        self._closed = False
        self._all_ended = trio.Event()

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
                    self._all_ended.set()
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
            if worker.process.alive:
                return worker
            await worker.process.end(0.0)
        # An app that can no longer be loaded is reported by the outcome of each job.
        worker, _ = await self._start_worker()
        return worker

    async def _start_worker(self) -> tuple[_Worker, str | None]:
        """Give a new worker, and why it cannot load the app. Raises WorkerDied."""
        try:
            process = await ChildProcess.start(python(child.__name__))
        except (OSError, MemoryError) as error:
            raise WorkerDied(f"no worker can be started: {error}") from error
        self._nursery.start_soon(process.log_output, _log, f"(Worker pid={process.pid}) ")
        worker = _Worker(process)
        fault: str | None = await worker.ask(self._first)
        return worker, fault

    async def close(self) -> None:
        """Take no job any more, and end the workers; those at work without ado."""
        self._closed = True
        for scope in self._running:
            scope.cancel()
        if self._running:
            with trio.CancelScope(shield=True):
                await self._all_ended.wait()
        async with trio.open_nursery() as nursery:
            for worker in self._idle:
                nursery.start_soon(worker.process.end, GRACE)
