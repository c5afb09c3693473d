"""A backend for runs that bring their app along: it opens another one for each of them.

    open_bundles           in a folder of its own
    └── _hold              a run: its bundle unpacked, and a backend for the app in it,
        └── backend        from the run's first job to its end

Apps of different runs may have modules of the same names, so they never meet in one process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import attrs
import trio

from superlink_trio.simulation.backend import (
    App,
    AppNotLoaded,
    Backend,
    BackendDied,
    Job,
    Outcome,
    RunOver,
)
from superlink_trio.simulation.beside import beside, ungrouped
from superlink_trio.simulation.folders import private_folder
from superlink_trio.simulation.source import when_available
from superlink_trio.state.messages import MessageState
from superlink_trio.wire.project import client_app_in_bundle
from superlink_trio.wire.runs import Fab
from superlink_trio.wire.tasks import TaskError

OpenApp: TypeAlias = Callable[[App], AbstractAsyncContextManager[Backend]]

_FAMILY = f"superlink-trio-bundles-{os.getuid()}-"

# Why a backend may not be there for an app: of the app, of the machine, or of the settings.
_NOT_OPENED = (AppNotLoaded, BackendDied, OSError, ValueError)

_MOST_UNPACKED = 2**30
"""Bytes of what is in a bundle: one of 10 MiB may claim a thousand times as much."""

_NOT_LOADED = 1
"""Flower's code of an error: the app cannot be loaded."""


@asynccontextmanager
async def open_bundles(
    state: MessageState, open_app: OpenApp, capacity: int, forget: Callable[[int], object]
) -> AsyncIterator[Backend]:
    """Give the block a backend for the runs of a state.

    `open_app` opens what runs one app. `capacity`: how many jobs there may be at the same time.
    `forget` is called with each run that is over.

    If the backend of a run dies, the block is cancelled, and BackendDied comes out of it.
    """
    root = Path(tempfile.gettempdir())
    async with private_folder(root, _FAMILY) as folder, trio.open_nursery() as nursery:
        bundles = _Bundles(state, open_app, capacity, forget, folder, nursery)
        try:
            yield bundles
        finally:
            bundles.close()


@attrs.define(eq=False)
class _Stage:
    """Where the app of a run is run."""

    run_id: int
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ready: trio.Event = attrs.field(factory=trio.Event)
    """Set once the app can be run, or cannot."""
    over: trio.Event = attrs.field(factory=trio.Event)
    backend: Backend | None = None
    fault: Exception | None = None
    """Why the app cannot be run."""

    def end(self) -> None:
        """Let it end: what opens still is not waited for."""
        self.over.set()
        if not self.ready.is_set():
            self.scope.cancel()


class _Bundles(Backend):
    def __init__(
        self,
        state: MessageState,
        open_app: OpenApp,
        capacity: int,
        forget: Callable[[int], object],
        folder: Path,
        nursery: trio.Nursery,
    ) -> None:
        self._state = state
        self._open_app = open_app
        self._capacity = capacity
        self._forget = forget
        self._folder = folder
        self._nursery = nursery
        self._stages: dict[int, _Stage] = {}

    @property
    def capacity(self) -> int:
        return self._capacity

    async def run(self, job: Job) -> Outcome:
        stage = self._stages.get(job.task.run_id)
        if stage is None:
            stage = self._stages[job.task.run_id] = _Stage(job.task.run_id)
            self._nursery.start_soon(self._hold, stage)
        await stage.ready.wait()
        if stage.fault is not None:
            return _not_loaded(job, stage.fault)
        try:
            if stage.backend is not None:
                return await stage.backend.run(job)
        except BackendDied:
            if not stage.over.is_set():
                raise
        # It is closed: with its run, or because all are.
        raise RunOver if stage.over.is_set() else BackendDied("the backend of the run is closed")

    async def _hold(self, stage: _Stage) -> None:
        """Keep a run's backend open until the run is over."""
        folder = self._folder / f"{stage.run_id:x}"
        try:
            with stage.scope:
                async with beside(partial(self._watch, stage)), AsyncExitStack() as opened:
                    try:
                        stage.backend = await self._open(stage.run_id, folder, opened)
                    except _NOT_OPENED as error:
                        stage.fault = error
                    else:
                        if stage.backend is None:
                            stage.over.set()
                    stage.ready.set()
                    await stage.over.wait()
        finally:
            stage.ready.set()
            del self._stages[stage.run_id]
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(shutil.rmtree, folder, True)

    async def _watch(self, stage: _Stage) -> None:
        await self._state.await_finished(stage.run_id)
        self._forget(stage.run_id)
        stage.end()

    async def _open(self, run_id: int, folder: Path, opened: AsyncExitStack) -> Backend | None:
        """Open a run's backend; None where the run is over."""
        run = await when_available(lambda: self._state.run(run_id))
        fab = None if run is None else await when_available(lambda: self._state.fab(run.fab_hash))
        if fab is None:
            return None
        reference = await trio.to_thread.run_sync(_unpack, fab, folder)
        app = App(reference=reference, directory=folder, objects=True)
        with ungrouped(*_NOT_OPENED):
            return await opened.enter_async_context(self._open_app(app))

    def close(self) -> None:
        """Let all of them end."""
        for stage in self._stages.values():
            stage.end()


def _unpack(fab: Fab, folder: Path) -> str:
    """Unpack a bundle; give where its ClientApp is. Raises ValueError, OSError."""
    reference = client_app_in_bundle(fab.content)
    try:
        with zipfile.ZipFile(BytesIO(fab.content)) as bundle:
            size = sum(entry.file_size for entry in bundle.infolist())
            if size > _MOST_UNPACKED:
                raise ValueError(f"the bundle unpacks to {size} bytes, more than {_MOST_UNPACKED}")
            # It keeps what it unpacks inside the folder, whatever its names say.
            bundle.extractall(folder)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"the bundle cannot be unpacked: {error}") from error
    return reference


def _not_loaded(job: Job, fault: Exception) -> Outcome:
    # Where it is a traceback, its last line says what is wrong.
    report, _, why = f"\n{fault}".rstrip().rpartition("\n")
    reason = f"An exception was raised when attempting to load the app: {why}"
    return Outcome(
        content=TaskError(_NOT_LOADED, reason),
        ttl=job.task.ttl,
        state=job.state,
        report=f"{fault}".strip() if report.strip() else "",
        fault=f"the app cannot be loaded: {why}",
    )
