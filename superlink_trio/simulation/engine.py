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
way when a backend died.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from typing import TypeVar

import attrs
import trio

from superlink_trio.logs.wording import counted, leaves
from superlink_trio.simulation.backend import (
    App,
    AppNotLoaded,
    Backend,
    BackendDied,
    Job,
    Node,
    OpenBackend,
    Outcome,
    WorkerDied,
)
from superlink_trio.simulation.failures import Failure, Failures
from superlink_trio.simulation.nodes import Nodes
from superlink_trio.simulation.progress import Display, Progress, log_progress
from superlink_trio.simulation.runs import RunMemory, Runs
from superlink_trio.state import Arrivals, NotTaken, State, StateUnavailable
from superlink_trio.wire.project import config_in_bundle, config_in_directory
from superlink_trio.wire.runs import Run, Scalar
from superlink_trio.wire.tasks import Task, TaskError, answer_to

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

# Where the tasks go, for the state: always to the same place, so that none counts as lost on its
# way when its node asks for the next one.
_CONNECTION = "simulation"

_MAX_TRIES = 2
"""How often a task may be under way when the backend dies, before it is given up."""

_RETRY_AFTER = 1.0
"""Seconds before a call of the state that was not available is tried again."""

_NOT_LOADED = 1
"""Flower's code of an error: the app cannot be loaded."""

_GIVEN_UP = "The simulation's workers died twice while the app worked on this task."
_TOO_LARGE = "the answer is too large to be handed to a driver in one message"
_NO_TTL = "ttl must be a number of seconds above 0"


@attrs.frozen(eq=False)
class _Life:
    """What one life works with."""

    backend: Backend
    arrivals: Arrivals
    workers: trio.Semaphore
    unanswered: trio.Semaphore
    """Bounds the answers that wait to be stored while workers go on."""


class UnusableSettings(ValueError):
    """The backend cannot use its settings; the message says what is wrong with which."""


class Simulation:
    """Simulated nodes of one app. Serves again after a backend has died.

    Arguments:
        state: Where the nodes are registered and their tasks come from.
        open_backend: Opens what runs the app.
        app: The app that every node runs.
        num_nodes: How many nodes there are. Node i has the partition id i.
        backend_name: What runs the app, for the log.
        backend_config: The backend's own settings.
        message_limit: Bytes of the largest answer that a driver can be sent.
        context_limit: Bytes that the Contexts of all nodes may take.
        display: Shows how it gets on; in the log by default.
    """

    def __init__(
        self,
        state: State,
        open_backend: OpenBackend,
        app: App,
        *,
        num_nodes: int,
        backend_name: str,
        backend_config: Mapping[str, object],
        message_limit: int,
        context_limit: int,
        display: Display = log_progress,
    ) -> None:
        self._state = state
        self._open_backend = partial(open_backend, app, backend_config)
        self._app_directory = app.directory
        self._num_nodes = num_nodes
        self._backend_name = backend_name
        self._message_limit = message_limit
        self._display = display
        self.was_ready = False
        self._progress = Progress()
        self._nodes = Nodes(state, num_nodes)
        # What the app's own pyproject.toml says, for runs without a bundle.
        self._app_config: Mapping[str, Scalar] = {}
        self._runs = Runs(context_limit)
        self._failures = Failures()
        self._under_way: set[str] = set()
        # How often a task that has no answer yet was under way when a life failed.
        self._deaths: Counter[str] = Counter()

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
        with _ungrouped(BackendDied), self._counting_deaths(), ExitStack() as online:
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
        try:
            self._app_config = await trio.to_thread.run_sync(
                config_in_directory, self._app_directory
            )
        except (OSError, ValueError) as fault:
            raise AppNotLoaded(str(fault)) from fault
        try:
            with _ungrouped(AppNotLoaded, BackendDied, ValueError):
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
        with self._state.arrivals(self._nodes.ids) as arrivals:
            progress.queue = arrivals
            life = _Life(backend, arrivals, trio.Semaphore(capacity), trio.Semaphore(2 * capacity))
            async with trio.open_nursery() as showing:
                showing.start_soon(self._display, progress)
                showing.start_soon(self._failures.report)
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
                node_id = await _when_available(life.arrivals.next)
                nursery.start_soon(self._handle, life, self._nodes[node_id])

    async def _handle(self, life: _Life, node: Node) -> None:
        """Handle the node's oldest task. It comes with a worker, which is free again early."""
        with ExitStack() as worker:
            worker.callback(life.workers.release)
            task = await _when_available(
                lambda: self._state.take_task_ins(node.node_id, _CONNECTION)
            )
            if task is not None:
                with self._failures.under_way(task):
                    async with self._state.handing_over_task_ins(task):
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
        except WorkerDied as died:
            worker.close()
            reason = f"The worker that ran the app died: {died}"
            await self._store_error(node, task, 0, Failure("the worker died", reason))
            return
        worker.close()
        stored = await self._store(run, node, task, outcome)
        # The last thing: a task that is run again finds the Context that it found before.
        if stored and isinstance(outcome.content, bytes):
            self._runs.keep(run, node.node_id, outcome.state, self._state.now())

    async def _perform(self, backend: Backend, job: Job) -> Outcome:
        """Let the backend run the app. What is under way when a life ends stays recorded."""
        task_id = job.task.task_id
        self._under_way.add(task_id)
        self._progress.running += 1
        self._progress.notify()
        try:
            outcome = await backend.run(job)
        except WorkerDied:
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
        known = self._runs.use(run_id, self._state.now())
        if known is not None:
            return known
        run = await _when_available(lambda: self._state.get_run(run_id)) or Run()
        fab = (
            await _when_available(lambda: self._state.get_fab(run.fab_hash))
            if run.fab_hash
            else None
        )
        config = self._app_config
        if fab is not None:
            config = await trio.to_thread.run_sync(config_in_bundle, fab.content)
        return self._runs.add(run_id, {**config, **run.override_config}, self._state.now())

    # Answers

    async def _store(self, run: RunMemory, node: Node, task: Task, outcome: Outcome) -> bool:
        """Store what came of a task; return whether it is its answer."""
        now = self._state.now()
        answer = answer_to(task, outcome.content, ttl=outcome.ttl, now=now)
        fault = self._fault(answer) or self._runs.fault(run, node.node_id, outcome.state)
        if fault is not None:
            reason = f"The node's answer was not valid: {fault}"
            await self._store_error(node, task, 0, Failure("an answer that is not valid", reason))
            return False
        answer_id = ""
        try:
            answer_id = await _when_available(
                lambda: self._state.store_task_res(answer), shield=True
            )
        except NotTaken as reason:
            _log.info("Answer of node %d not taken: %s", node.node_id, reason)
        failure = None
        if isinstance(outcome.content, TaskError):
            fault = outcome.fault or "the app replied with an error"
            failure = Failure(fault, outcome.content.reason, outcome.report)
        self._settled(node, task, failure)
        return answer_id == answer.task_id

    def _fault(self, answer: Task) -> str | None:
        if not 0 < answer.ttl < math.inf:
            return _NO_TTL
        return _TOO_LARGE if answer.size > self._message_limit else None

    async def _store_error(self, node: Node, task: Task, code: int, failure: Failure) -> None:
        error = TaskError(code, failure.reason)
        await _when_available(
            lambda: self._state.store_error(task.task_id, error, producer=node.node_id),
            shield=True,
        )
        self._settled(node, task, failure)

    def _settled(self, node: Node, task: Task, failure: Failure | None) -> None:
        self._deaths.pop(task.task_id, None)
        self._progress.answered(failed=failure is not None)
        self._failures.count(node, task, failure)


@contextmanager
def _ungrouped(*kinds: type[Exception]) -> Iterator[None]:
    """Raise an error of a backend as it is, whatever nurseries it came through."""
    try:
        yield
    except BaseExceptionGroup as group:
        matching, rest = group.split(kinds)
        if matching is None or rest is not None:
            raise
        raise next(leaves(matching)) from None


async def _when_available(call: Callable[[], Awaitable[_T]], *, shield: bool = False) -> _T:
    """Retry a call of the state until it is available; its log says what is wrong with it.

    With `shield` only the pauses in between can be cancelled.
    """
    while True:
        try:
            with trio.CancelScope(shield=shield):
                return await call()
        except StateUnavailable:
            await trio.sleep(_RETRY_AFTER)
