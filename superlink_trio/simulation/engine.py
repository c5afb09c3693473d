"""The engine: takes the tasks of simulated nodes and lets a backend run their app.

    serve                  one life: a backend, the nodes online
    └── _work              until asked to stop
        ├── display        shows how it gets on
        ├── _dispatch      waits for a free worker, then for a node that has a task
        └── _handle        one task: take, run, store the answer

A node works on one task at a time, as a real one does, so that its Context is never used twice at
once. Who has waited longest comes first, and goes to the back with its next task: two runs that
keep all workers busy take turns.

What outlives a backend is in `Simulation`: the nodes, their Contexts, and which tasks were under
way when a backend died. Where tasks come from and answers go is a `source`'s: it differs between
generations of Flower.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, contextmanager

import attrs
import trio

from superlink_trio.logs.wording import counted
from superlink_trio.simulation.backend import (
    AppNotLoaded,
    Backend,
    BackendDied,
    Job,
    Node,
    Outcome,
    RunOver,
    WorkerDied,
)
from superlink_trio.simulation.beside import ungrouped
from superlink_trio.simulation.failures import Failure, Failures
from superlink_trio.simulation.nodes import Nodes
from superlink_trio.simulation.progress import Display, Progress, log_progress
from superlink_trio.simulation.runs import RunMemory, Runs
from superlink_trio.simulation.source import Source, Waiting, when_available
from superlink_trio.state import NotTaken
from superlink_trio.wire.tasks import Task, TaskError

_log = logging.getLogger(__name__)

_MAX_TRIES = 2
"""How often a task may be under way when the backend dies, before it is given up."""

_NOT_LOADED = 1
"""Flower's code of an error: the app cannot be loaded."""

_GIVEN_UP = "The simulation's workers died twice while the app worked on this task."


@attrs.frozen(eq=False)
class _Life:
    """What one life works with."""

    backend: Backend
    arrivals: Waiting
    workers: trio.Semaphore
    unanswered: trio.Semaphore
    """Bounds the answers that wait to be stored while workers go on."""


class UnusableSettings(ValueError):
    """The backend cannot use its settings; the message says what is wrong with which."""


class Simulation:
    """Simulated nodes. Serves again after a backend has died.

    Arguments:
        source: Where the nodes are registered, their tasks come from and their answers go.
        open_backend: Opens what runs the app. Raises what an `OpenBackend` does.
        num_nodes: How many nodes there are. Node i has the partition id i.
        backend_name: What runs the app, for the log.
        context_limit: Bytes that the Contexts of all nodes may take.
        display: Shows how it gets on; in the log by default.
    """

    def __init__(
        self,
        source: Source,
        open_backend: Callable[[], AbstractAsyncContextManager[Backend]],
        *,
        num_nodes: int,
        backend_name: str,
        context_limit: int,
        display: Display = log_progress,
    ) -> None:
        self._source = source
        self._open_backend = open_backend
        self._num_nodes = num_nodes
        self._backend_name = backend_name
        self._display = display
        self.was_ready = False
        self._progress = Progress()
        self._nodes = Nodes(source, num_nodes)
        self._runs = Runs(context_limit)
        self._failures = Failures()
        self._under_way: set[str] = set()
        # How often a task that has no answer yet was under way when a life failed.
        self._deaths: Counter[str] = Counter()

    def forget(self, run_id: int) -> None:
        """Forget what nodes remember of a run, which is over."""
        self._runs.forget(run_id)

    async def serve(
        self,
        *,
        stopping: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run tasks until `stopping`; ready when the nodes are online and the backend is up.

        Apps that run when it is to stop may finish. If it is cancelled instead, or if the backend
        dies, what they worked on is queued again. Asked to stop, it deletes its nodes at last.

        Raises AppNotLoaded, BackendDied, StateUnavailable, UnusableSettings.
        """
        with ungrouped(BackendDied), self._counting_deaths(), ExitStack() as online:
            # Those of an earlier life, while the new backend is still starting.
            self._nodes.attend(online)
            async with AsyncExitStack() as opened:
                backend = await self._open(opened)
                try:
                    await self._nodes.register(online)
                    await self._work(backend, stopping, task_status)
                finally:
                    if stopping.is_set():
                        online.close()
                        await self._nodes.delete()

    async def _open(self, opened: AsyncExitStack) -> Backend:
        await self._source.prepare()
        try:
            with ungrouped(AppNotLoaded, BackendDied, ValueError):
                return await opened.enter_async_context(self._open_backend())
        except ValueError as unusable:
            raise UnusableSettings(str(unusable)) from unusable

    # One life

    async def _work(
        self, backend: Backend, stopping: trio.Event, task_status: trio.TaskStatus[None]
    ) -> None:
        capacity = backend.capacity
        progress = self._progress
        progress.nodes, progress.capacity = self._num_nodes, capacity
        async with self._source.arrivals(self._nodes.ids) as arrivals:
            progress.queue = arrivals
            life = _Life(backend, arrivals, trio.Semaphore(capacity), trio.Semaphore(2 * capacity))
            async with trio.open_nursery() as showing:
                showing.start_soon(self._display, progress)
                showing.start_soon(self._failures.report)
                showing.start_soon(self._source.keep_online, self._nodes.ids)
                async with trio.open_nursery() as nursery:
                    dispatching = trio.CancelScope()
                    nursery.start_soon(self._dispatch, life, dispatching, nursery)
                    self._log_ready(capacity)
                    self.was_ready = True
                    task_status.started()
                    await stopping.wait()
                    dispatching.cancel()
                showing.cancel_scope.cancel()

    def _log_ready(self, capacity: int) -> None:
        _log.info(
            "Simulating %s: backend %s, %s at a time",
            *(counted(self._num_nodes, "node"), self._backend_name, counted(capacity, "task")),
            extra={
                "nodes": self._num_nodes,
                "backend": self._backend_name,
                "capacity": capacity,
            },
        )

    async def _dispatch(
        self, life: _Life, dispatching: trio.CancelScope, nursery: trio.Nursery
    ) -> None:
        with dispatching:
            while True:
                await life.unanswered.acquire()
                await life.workers.acquire()
                node_id = await when_available(life.arrivals.next)
                nursery.start_soon(self._handle, life, self._nodes[node_id])

    async def _handle(self, life: _Life, node: Node) -> None:
        """Handle the node's oldest task. It comes with a worker, which is free again early."""
        with ExitStack() as worker:
            worker.callback(life.workers.release)
            async with self._source.take(node.node_id) as task:
                if task is not None:
                    with self._failures.under_way(task):
                        await self._answer(life, worker, node, task)
        life.unanswered.release()
        life.arrivals.done(node.node_id)

    async def _answer(self, life: _Life, worker: ExitStack, node: Node, task: Task) -> None:
        if self._deaths[task.task_id] >= _MAX_TRIES:
            await self._store_error(node, task, 0, Failure("the workers died twice", _GIVEN_UP))
            return
        try:
            run = await self._remember(task.run_id)
        except ValueError as fault:
            reason = f"The app's config cannot be used: {fault}"
            failure = Failure("the app's config cannot be used", reason)
            await self._store_error(node, task, _NOT_LOADED, failure)
            return
        job = Job(
            task=task,
            node=node,
            state=run.contexts.get(node.node_id, b""),
            run_config=run.config,
        )
        try:
            outcome = await self._perform(life.backend, job)
        except RunOver:
            return  # nobody waits for an answer
        except WorkerDied as died:
            worker.close()
            reason = f"The worker that ran the app died: {died}"
            await self._store_error(node, task, 0, Failure("the worker died", reason))
            return
        worker.close()
        stored = await self._store(run, node, task, outcome)
        # The last thing: a task that is run again finds the Context that it found before.
        if stored and isinstance(outcome.content, bytes):
            self._runs.keep(run, node.node_id, outcome.state, self._source.now())

    async def _perform(self, backend: Backend, job: Job) -> Outcome:
        """Let the backend run the app. What is under way when a life ends stays recorded."""
        task_id = job.task.task_id
        self._under_way.add(task_id)
        self._progress.running += 1
        self._progress.notify()
        try:
            outcome = await backend.run(job)
        except (RunOver, WorkerDied):
            self._under_way.discard(task_id)
            raise
        finally:
            self._progress.running -= 1
        self._under_way.discard(task_id)
        return outcome

    @contextmanager
    def _counting_deaths(self) -> Iterator[None]:
        self._under_way.clear()
        try:
            yield
        except Exception:
            self._deaths.update(self._under_way)
            raise

    async def _remember(self, run_id: int) -> RunMemory:
        """Give what is remembered of a run. Raises ValueError where its config cannot be used."""
        known = self._runs.use(run_id, self._source.now())
        if known is not None:
            return known
        config = await self._source.config_of(run_id)
        return self._runs.add(run_id, config, self._source.now())

    # Answers

    async def _store(self, run: RunMemory, node: Node, task: Task, outcome: Outcome) -> bool:
        """Store what came of a task; return whether it is its answer."""
        fault = self._source.fault(task, outcome.content, outcome.ttl)
        fault = fault or self._runs.fault(run, node.node_id, outcome.state)
        if fault is not None:
            reason = f"The node's answer was not valid: {fault}"
            await self._store_error(node, task, 0, Failure("an answer that is not valid", reason))
            return False
        is_the_answer = False
        try:
            is_the_answer = await self._source.answer(task, outcome.content, outcome.ttl)
        except NotTaken as reason:
            _log.info("Answer of node %d not taken: %s", node.node_id, reason)
        failure = None
        if isinstance(outcome.content, TaskError):
            fault = outcome.fault or "the app replied with an error"
            failure = Failure(fault, outcome.content.reason, outcome.report)
        self._settled(node, task, failure)
        return is_the_answer

    async def _store_error(self, node: Node, task: Task, code: int, failure: Failure) -> None:
        await self._source.fail(task, TaskError(code, failure.reason))
        self._settled(node, task, failure)

    def _settled(self, node: Node, task: Task, failure: Failure | None) -> None:
        self._deaths.pop(task.task_id, None)
        self._progress.answered(failed=failure is not None)
        self._failures.count(node, task, failure)
