"""The state by itself, without a transport: commits, and the work of simulated nodes."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec

import trio
from peering.messages import stored_task
from peering.processes import ROOT, output

from benchmarks.comparison import Bench, NotMeasured, Side, group, two_workers
from benchmarks.deployments import POSTGRESQL, SQLITE, postgresql
from benchmarks.table import (
    CALLS_PER_SECOND,
    COMMITS_PER_SECOND,
    PUSHES,
    TASKS_PER_SECOND,
    Figure,
    at_least,
    middle_and_tail,
)
from superlink_trio.simulation.backend import App, OpenBackend
from superlink_trio.simulation.engine import Simulation
from superlink_trio.simulation.process.backend import open_process_backend
from superlink_trio.simulation.tasks import TaskSource
from superlink_trio.state import MemoryState, State, open_state
from superlink_trio.state.durable import DurableState
from superlink_trio.wire.runs import Run
from superlink_trio.wire.tasks import TaskError

_PUSHERS = (1, 16, 256)
_NODES = 100
_WARM_UP = 0.5
_LIMIT = 2**29
_APP = App(reference="benchmarks.weigher:app", directory=ROOT / "scripts")


@group(times=3, reference=0)
async def commits(bench: Bench, side: Side) -> list[Figure]:
    """Pushes and commits a second, pushes a commit, and how long one takes, without a transport."""
    number = len(list(bench.folder.glob("commits-*")))
    async with postgresql() as server:
        return [
            *await _pushed(bench, SQLITE, str(bench.folder / f"commits-{number}.db")),
            *await _pushed(bench, POSTGRESQL, server.new_schema()),
        ]


async def _pushed(bench: Bench, store: str, database: str) -> list[Figure]:
    state, figures = open_state(database), list[Figure]()
    assert isinstance(state, DurableState), "only these commit"
    seconds, took = 1 if bench.quick else 3, list[float]()

    async def push(node_id: int) -> None:
        while True:
            start = time.perf_counter()
            await state.store_task_ins([stored_task(run_id, node_id, b"weights" * 64)])
            took.append(time.perf_counter() - start)

    async with _serving(state.serve):
        run_id = await state.create_run(Run())
        nodes = [await state.create_node(3600.0) for _ in range(_NODES)]
        for pushers in _PUSHERS:
            steps, committed = state.steps, state.commits
            took.clear()
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as pushing:
                    for pusher in range(pushers):
                        pushing.start_soon(push, nodes[pusher % _NODES])
            steps, committed = state.steps - steps, state.commits - committed
            what = f"the state alone, {store}, {pushers} at once"
            figures += [
                Figure(f"{what}: pushes", steps / seconds, CALLS_PER_SECOND),
                Figure(f"{what}: commits", committed / seconds, COMMITS_PER_SECOND),
                Figure(f"{what}: pushes in a commit", steps / committed, PUSHES),
                *middle_and_tail(what, took),
            ]
    return figures


@group(times=1, reference=0)
async def engine(bench: Bench, side: Side) -> list[Figure]:
    """Trivial tasks a second through the whole simulation, in worker processes."""
    return [await _simulated("process", open_process_backend, _seconds(bench), 1500)]


@group(times=1, reference=0)
async def engine_ray(bench: Bench, side: Side) -> list[Figure]:
    """Trivial tasks a second through the whole simulation, on Ray."""
    if find_spec("ray") is None:
        raise NotMeasured("Ray is not installed (an extra of this package: vce)")
    from superlink_trio.simulation.ray.backend import open_ray_backend

    seconds = _seconds(bench)
    bare = await output(sys.executable, "-m", "benchmarks.bare_actors", str(seconds), seconds=300)
    what = "Ray's actors alone, 2 workers, a trivial function"
    return [
        await _simulated("ray", open_ray_backend, seconds, 1000),
        Figure(what, float(bare), CALLS_PER_SECOND),
    ]


def _seconds(bench: Bench) -> float:
    return 0.5 if bench.quick else 5


async def _simulated(name: str, backend: OpenBackend, seconds: float, target: float) -> Figure:
    """Let simulated nodes work on trivial tasks that are stored, run and answered."""
    state, counted = MemoryState(), [0]
    simulation = Simulation(
        TaskSource(state, app_directory=_APP.directory, message_limit=_LIMIT),
        partial(backend, _APP, two_workers(name)),
        num_nodes=_NODES,
        backend_name=name,
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
    what = f"trivial tasks of simulated nodes, 2 workers, {name}"
    return Figure(what, rate, TASKS_PER_SECOND, at_least(target, TASKS_PER_SECOND))


async def _drive(state: State, run_id: int, node_id: int, counted: list[int]) -> None:
    """Give one node a task after the other."""
    while True:
        asked = await state.store_task_ins([stored_task(run_id, node_id, b"")])
        await state.await_task_res(asked, 1)
        [answer] = await state.take_task_res(asked, _LIMIT)
        if isinstance(answer.content, TaskError):
            raise NotMeasured(f"an app failed: {answer.content.reason}")
        await state.confirm_task_res([answer])
        counted[0] += 1


@asynccontextmanager
async def _serving(*serve: Callable[..., Awaitable[None]]) -> AsyncIterator[None]:
    """Serve for as long as the block, one after the other."""
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        for each in serve:
            await nursery.start(partial(each, stopping=stopping))
        yield
        stopping.set()
