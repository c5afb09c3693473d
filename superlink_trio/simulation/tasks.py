"""The tasks of Flower 1.8 to 1.11, as the engine takes them out of the state."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import trio

from superlink_trio.simulation.backend import AppNotLoaded
from superlink_trio.simulation.source import NO_TTL, Source, Waiting, when_available
from superlink_trio.state import State
from superlink_trio.wire.project import config_in_bundle, config_in_directory
from superlink_trio.wire.runs import Run, Scalar
from superlink_trio.wire.tasks import Task, TaskError, answer_to

# Where the tasks go, for the state: always to the same place, so that none counts as lost on its
# way when its node asks for the next one.
_CONNECTION = "simulation"

_TOO_LARGE = "the answer is too large to be handed to a driver in one message"


class TaskSource(Source):
    """Tasks in a state.

    Arguments:
        state: Where the nodes are registered and their tasks come from.
        app_directory: Where the app lies, whose own config counts for runs without a bundle.
        message_limit: Bytes of the largest answer that a driver can be sent.
    """

    def __init__(self, state: State, *, app_directory: Path, message_limit: int) -> None:
        self._state = state
        self._app_directory = app_directory
        self._message_limit = message_limit
        self._app_config: Mapping[str, Scalar] = {}

    def now(self) -> float:
        return self._state.now()

    async def prepare(self) -> None:
        try:
            self._app_config = await trio.to_thread.run_sync(
                config_in_directory, self._app_directory
            )
        except (OSError, ValueError) as fault:
            raise AppNotLoaded(str(fault)) from fault

    async def create_node(self, partition_id: int) -> int:
        return await self._state.create_simulated_node()

    def attend(self, node_id: int) -> AbstractContextManager[object]:
        return self._state.attend(node_id)

    async def keep_online(self, node_ids: Collection[int]) -> None:
        """Do nothing: `attend` does."""

    async def delete_node(self, node_id: int) -> None:
        await self._state.delete_node(node_id)

    @asynccontextmanager
    async def arrivals(self, node_ids: Collection[int]) -> AsyncIterator[Waiting]:
        with self._state.arrivals(node_ids) as arrivals:
            yield arrivals

    @asynccontextmanager
    async def take(self, node_id: int) -> AsyncIterator[Task | None]:
        task = await when_available(lambda: self._state.take_task_ins(node_id, _CONNECTION))
        if task is None:
            yield None
            return
        async with self._state.handing_over_task_ins(task):
            yield task

    async def config_of(self, run_id: int) -> Mapping[str, Scalar]:
        """Give the config of the bundle, or of the app's directory, under that of the run."""
        run = await when_available(lambda: self._state.get_run(run_id)) or Run()
        fab = (
            await when_available(lambda: self._state.get_fab(run.fab_hash))
            if run.fab_hash
            else None
        )
        config = self._app_config
        if fab is not None:
            config = await trio.to_thread.run_sync(config_in_bundle, fab.content)
        return {**config, **run.override_config}

    def fault(self, task: Task, content: bytes | TaskError, ttl: float) -> str | None:
        if not 0 < ttl < math.inf:
            return NO_TTL
        answer = answer_to(task, content, ttl=ttl, now=self.now())
        return _TOO_LARGE if answer.size > self._message_limit else None

    async def answer(self, task: Task, content: bytes | TaskError, ttl: float) -> bool:
        answer = answer_to(task, content, ttl=ttl, now=self.now())
        stored = await when_available(lambda: self._state.store_task_res(answer), shield=True)
        return stored == answer.task_id

    async def fail(self, task: Task, error: TaskError) -> None:
        await when_available(
            lambda: self._state.store_error(task.task_id, error, producer=task.consumer),
            shield=True,
        )
