"""A backend that runs the app where it is asked to, and fails when it is told to; and its lab."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio
from builders import task_ins
from stores import settle

from superlink_trio.simulation.backend import (
    App,
    AppNotLoaded,
    Backend,
    BackendDied,
    Job,
    OpenBackend,
    Outcome,
    WorkerDied,
)
from superlink_trio.simulation.engine import Simulation
from superlink_trio.simulation.tasks import TaskSource
from superlink_trio.state import State
from superlink_trio.wire.runs import Run
from superlink_trio.wire.tasks import Task, TaskError


@attrs.define(eq=False)
class Workshop:
    """Opens backends, and says what their app makes of a task by its content.

    b"hold" waits until `go` is set, b"fail" is an app that raises, b"crash" ends its worker,
    b"bomb" the backend. All others are answered by the node's Context and added to it.
    """

    capacity: int = 2
    go: trio.Event = attrs.field(factory=trio.Event)
    jobs: list[Job] = attrs.field(factory=list)
    """All that were ever started."""
    now_running: Counter[int] = attrs.field(factory=Counter)
    most_running: int = 0
    ttl: float = 60.0
    opened: list[LocalBackend] = attrs.field(factory=list)
    refusal: Exception | None = None
    """What opening raises."""
    in_group: bool = False

    @asynccontextmanager
    async def open(self, app: App, config: Mapping[str, object]) -> AsyncIterator[Backend]:
        if self.refusal is not None:
            if self.in_group:
                raise ExceptionGroup("", [self.refusal])
            raise self.refusal
        async with trio.open_nursery() as nursery:
            backend = LocalBackend(self)
            self.opened.append(backend)
            nursery.start_soon(backend.live)
            try:
                yield backend
            finally:
                backend.close()
            nursery.cancel_scope.cancel()

    def release(self) -> None:
        """Let go those that hold now, not those that come later."""
        if not self.go.is_set():
            self.go.set()
            self.go = trio.Event()

    async def answer(self, job: Job) -> Outcome:
        node_id = job.node.node_id
        self.jobs.append(job)
        self.now_running[node_id] += 1
        assert self.now_running[node_id] == 1, "a node works on one task at a time"
        self.most_running = max(self.most_running, self.now_running.total())
        try:
            await trio.lowlevel.checkpoint()
            return await self._answer(job)
        finally:
            self.now_running[node_id] -= 1

    async def _answer(self, job: Job) -> Outcome:
        content = job.task.content
        match content:
            case b"hold":
                await self.go.wait()
            case b"crash":
                raise WorkerDied("signal 9")
            case b"bomb":
                self.opened[-1].death.set()
                await trio.sleep_forever()
            case b"fail":
                error = TaskError(2, "ValueError:<'no'>")
                return Outcome(
                    content=error,
                    ttl=self.ttl,
                    state=job.state,
                    report="Traceback: here",
                    fault="ValueError in client.py:14",
                )
        if isinstance(content, TaskError):
            return Outcome(content=b"error", ttl=self.ttl, state=job.state)
        return Outcome(content=job.state, ttl=self.ttl, state=job.state + content + b".")


class LocalBackend(Backend):
    """Runs jobs in the tasks that ask for it."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._workers = trio.CapacityLimiter(workshop.capacity)
        self.death = trio.Event()
        self.gone = False
        self._running: set[trio.CancelScope] = set()

    async def live(self) -> None:
        await self.death.wait()
        raise BackendDied("the test killed it")

    @property
    def capacity(self) -> int:
        return self._workshop.capacity

    async def run(self, job: Job) -> Outcome:
        if self.gone:
            raise BackendDied("the test took it away")
        with trio.CancelScope() as scope:
            self._running.add(scope)
            try:
                async with self._workers:
                    return await self._workshop.answer(job)
            finally:
                self._running.remove(scope)
        raise BackendDied("it was closed")

    def close(self) -> None:
        self.gone = True
        for scope in self._running:
            scope.cancel()


@attrs.define(eq=False)
class Lab:
    """A simulation over a state, as a driver and a supervisor see it."""

    state: State
    app_directory: Path
    workshop: Workshop = attrs.field(factory=Workshop)
    simulation: Simulation = attrs.field(init=False)
    run_id: int = 0

    def make(
        self, num_nodes: int = 3, *, open_backend: OpenBackend | None = None, **options: Any
    ) -> None:
        app = App(reference="client:app", directory=self.app_directory)
        self.simulation = Simulation(
            TaskSource(self.state, app_directory=app.directory, message_limit=10_000),
            partial(open_backend or self.workshop.open, app, {}),
            num_nodes=num_nodes,
            **{"backend_name": "local", "context_limit": 1_000_000, **options},
        )

    @asynccontextmanager
    async def life(self) -> AsyncIterator[trio.Event]:
        """One life of the simulation; it is asked to stop at the end of the block."""
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: self.simulation.serve(
                    stopping=stopping, task_status=task_status
                )
            )
            if not self.run_id:
                self.run_id = await self.state.create_run(Run())
            yield stopping
            stopping.set()

    @asynccontextmanager
    async def last_life(self) -> AsyncIterator[None]:
        """One life that the death of its backend ends, before the end of the block."""
        try:
            async with self.life():
                yield
                await trio.sleep_forever()
        except ExceptionGroup as group:
            # The group is that of our own nursery.
            if [type(error) for error in group.exceptions] != [BackendDied]:
                raise

    async def nodes(self) -> Sequence[int]:
        return sorted(await self.state.online_nodes(self.run_id))

    async def push(self, node_id: int, *contents: bytes | TaskError, **changes: Any) -> list[str]:
        changes = {"now": self.state.now(), "run_id": self.run_id, **changes}
        tasks = [task_ins(node_id=node_id, content=content, **changes) for content in contents]
        return list(await self.state.store_task_ins(tasks))

    async def answers(self, task_ids: Collection[str]) -> list[Task]:
        """Wait for all answers and collect them, in the order of their tasks."""
        await self.state.await_task_res(task_ids, 10**9)
        return await self.answered(task_ids)

    async def answered(self, task_ids: Collection[str]) -> list[Task]:
        """Collect the answers that are there."""
        answers = await self.state.take_task_res(task_ids, 10**9)
        await self.state.confirm_task_res(answers)
        return list(answers)

    async def settle(self) -> None:
        await settle(self.state)

    @property
    def contents(self) -> list[object]:
        """What the tasks held that were started so far."""
        return [job.task.content for job in self.workshop.jobs]


def not_loaded() -> AppNotLoaded:
    return AppNotLoaded(
        "Traceback (most recent call last):\n"
        '  File "client.py", line 1, in <module>\n'
        "ModuleNotFoundError: No module named 'torch'\n"
    )
