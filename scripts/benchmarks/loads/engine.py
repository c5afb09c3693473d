"""Let simulated nodes work on trivial tasks, without a transport: `engine BACKEND SECONDS`.

Reports the tasks a second that were stored, run and answered, the state in memory.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

import trio

from benchmarks.processes import two_workers
from superlink_trio.simulation.backend import App, OpenBackend
from superlink_trio.simulation.engine import Simulation
from superlink_trio.state import MemoryState, State
from superlink_trio.wire.runs import Run
from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError, new_task_id

_NODES = 100
_WARM_UP = 0.5
_LIMIT = 2**29
_APP = App(reference="benchmarks.loads.weigher:app", directory=Path(__file__).parents[2])


def _opener(backend: str) -> OpenBackend:
    if backend == "ray":
        from superlink_trio.simulation.ray.backend import open_ray_backend

        return open_ray_backend
    from superlink_trio.simulation.process import open_process_backend

    return open_process_backend


async def main(backend: str, seconds: float) -> None:
    state = MemoryState()
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
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        for serve in (state.serve, simulation.serve):
            await nursery.start(partial(serve, stopping=stopping))
        run_id, counted = await state.create_run(Run()), [0]
        async with trio.open_nursery() as driving:
            for node_id in await state.online_nodes(run_id):
                driving.start_soon(_drive, state, run_id, node_id, counted)
            await trio.sleep(_WARM_UP)
            before, start = counted[0], time.perf_counter()
            await trio.sleep(seconds)
            rate = (counted[0] - before) / (time.perf_counter() - start)
            driving.cancel_scope.cancel()
        print(json.dumps({"rate": rate}))
        stopping.set()


async def _drive(state: State, run_id: int, node_id: int, counted: list[int]) -> None:
    """Give one node a task after the other."""
    while True:
        now = time.time()
        task = Task(
            task_id=new_task_id(),
            group_id="1",
            run_id=run_id,
            producer=ANONYMOUS,
            consumer=node_id,
            created_at=now,
            pushed_at=now,
            ttl=3600.0,
            ancestry=(),
            task_type="train",
            content=b"",
        )
        asked = await state.store_task_ins([task])
        await state.await_task_res(asked, 1)
        [answer] = await state.take_task_res(asked, _LIMIT)
        if isinstance(answer.content, TaskError):
            sys.exit(f"an app failed: {answer.content.reason}")
        await state.confirm_task_res([answer])
        counted[0] += 1


if __name__ == "__main__":
    trio.run(main, sys.argv[1], float(sys.argv[2]))
