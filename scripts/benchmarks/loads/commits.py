"""Push to a state in a file, from 1, 16 and 256 tasks at once, and count what it commits.

python -m benchmarks.loads.commits FILE SECONDS
"""

from __future__ import annotations

import json
import sys
import time

import trio

from superlink_trio.state import SqliteState
from superlink_trio.wire.runs import Run
from superlink_trio.wire.tasks import ANONYMOUS, Task, new_task_id

_PUSHERS = (1, 16, 256)


async def main(file: str, seconds: float) -> None:
    state = SqliteState(file)
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: state.serve(stopping=stopping, task_status=task_status)
        )
        run_id, node_id = await state.create_run(Run()), await state.create_node(3600.0)
        figures = {}
        for pushers in _PUSHERS:
            steps, commits = state.steps, state.commits
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as pushing:
                    for _ in range(pushers):
                        pushing.start_soon(push, state, run_id, node_id)
            steps, commits = state.steps - steps, state.commits - commits
            figures[str(pushers)] = {
                "pushes": steps / seconds,
                "commits": commits / seconds,
                "each": steps / commits,
            }
        sys.stdout.write(json.dumps(figures))
        stopping.set()


async def push(state: SqliteState, run_id: int, node_id: int) -> None:
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
            content=b"weights" * 64,
        )
        await state.store_task_ins([task])


if __name__ == "__main__":
    trio.run(main, sys.argv[1], float(sys.argv[2]))
