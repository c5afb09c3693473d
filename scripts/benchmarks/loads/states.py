"""Loads on a state, without a transport: commits of a file, and the work of simulated nodes."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio
from peering.messages import stored_task

from benchmarks.comparison import two_workers
from superlink_trio.simulation.backend import App, OpenBackend
from superlink_trio.simulation.engine import Simulation
from superlink_trio.state import MemoryState, SqliteState, State
from superlink_trio.wire.runs import Run
from superlink_trio.wire.tasks import TaskError

_PUSHERS = (1, 16, 256)
_NODES = 100
_WARM_UP = 0.5
_LIMIT = 2**29
_APP = App(reference="benchmarks.loads.weigher:app", directory=Path(__file__).parents[2])


@asynccontextmanager
async def _serving(*serve: Callable[..., Awaitable[None]]) -> AsyncIterator[trio.Nursery]:
    """Serve for as long as the block, one after the other."""
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        for each in serve:
            await nursery.start(partial(each, stopping=stopping))
        yield nursery
        stopping.set()


def commits(file: str, seconds: float) -> dict[str, dict[str, float]]:
    """Push to a state in a file, from 1, 16 and 256 tasks at once, and count what it commits."""
    return trio.run(_commits, file, seconds)


async def _commits(file: str, seconds: float) -> dict[str, dict[str, float]]:
    state, figures = SqliteState(file), {}

    async def push() -> None:
        while True:
            await state.store_task_ins([stored_task(run_id, node_id, b"weights" * 64)])

    async with _serving(state.serve):
        run_id, node_id = await state.create_run(Run()), await state.create_node(3600.0)
        for pushers in _PUSHERS:
            steps, committed = state.steps, state.commits
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as pushing:
                    for _ in range(pushers):
                        pushing.start_soon(push)
            steps, committed = state.steps - steps, state.commits - committed
            figures[str(pushers)] = {
                "pushes": steps / seconds,
                "commits": committed / seconds,
                "each": steps / committed,
            }
    return figures


def simulated(backend: str, seconds: float) -> dict[str, float]:
    """Let simulated nodes work on trivial tasks, the state in memory.

    Gives the tasks a second that were stored, run and answered.
    """
    return {"rate": trio.run(_simulated, backend, seconds)}


async def _simulated(backend: str, seconds: float) -> float:
    state, counted = MemoryState(), [0]
    simulation = Simulation(
        state,
        _opener(backend),
        _APP,
        num_nodes=_NODES,
        backend_name=backend,
        backend_config=two_workers(backend),
        message_limit=_LIMIT,
        context_limit=_LIMIT,
    )
    async with _serving(state.serve, simulation.serve):
        run_id = await state.create_run(Run())
        async with trio.open_nursery() as driving:
            for node_id in await state.online_nodes(run_id):
                driving.start_soon(_drive, state, run_id, node_id, counted)
            await trio.sleep(_WARM_UP)
            before, start = counted[0], time.perf_counter()
            await trio.sleep(seconds)
            rate = (counted[0] - before) / (time.perf_counter() - start)
            driving.cancel_scope.cancel()
    return rate


def _opener(backend: str) -> OpenBackend:
    if backend == "ray":
        from superlink_trio.simulation.ray.backend import open_ray_backend

        return open_ray_backend
    from superlink_trio.simulation.process.backend import open_process_backend

    return open_process_backend


async def _drive(state: State, run_id: int, node_id: int, counted: list[int]) -> None:
    """Give one node a task after the other."""
    while True:
        asked = await state.store_task_ins([stored_task(run_id, node_id, b"")])
        await state.await_task_res(asked, 1)
        [answer] = await state.take_task_res(asked, _LIMIT)
        if isinstance(answer.content, TaskError):
            sys.exit(f"an app failed: {answer.content.reason}")
        await state.confirm_task_res([answer])
        counted[0] += 1
