"""Do a little of everything, say what was acknowledged, and die without any farewell."""

from __future__ import annotations

import json
import os
import signal
import sys

import attrs
import trio
from builders import EPOCH, answer_to, task_ins

from superlink_trio.state import SqliteState
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import Task, TaskError

LARGE = bytes(range(256)) * 1024


async def main(path: str) -> None:
    state = SqliteState(path, clock=lambda: EPOCH)
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: state.serve(stopping=trio.Event(), task_status=task_status)
        )
        run = Run(fab_id="f", fab_hash="h", override_config={"lr": 0.1, "key": b"\x00\xff"})
        run_id = await state.create_run(run, Fab(hash="h", content=b"bundle"))
        node_id, other = await state.create_node(90.0), await state.create_node(30.0)
        gone = await state.create_node(90.0)
        await state.delete_node(gone)
        tasks = [task_ins(run_id, node_id) for _ in range(3)] + [
            task_ins(run_id, other, content=LARGE),
            task_ins(run_id, other, content=LARGE),
        ]
        await state.store_task_ins(tasks)
        answered = await take(state, node_id)
        await state.confirm_task_ins(answered)
        await state.store_task_res(answer_to(answered, content=LARGE))
        handed_over = await take(state, node_id)
        await state.confirm_task_ins(handed_over)
        under_way = await take(state, node_id)
        failed = await take(state, other)
        await state.store_error(failed.task_id, TaskError(2, "ValueError:<'x'>"), producer=None)
        await state.take_task_res([failed.task_id], 1)
        last = task_ins(run_id, other)
        await state.store_task_ins([last])
        await state.store_task_res(answer_to(last))
        await state.confirm_task_res(await state.take_task_res([last.task_id], 1))
        names = {
            "last": last.task_id,
            "run": run_id,
            "nodes": [node_id, other, gone],
            "answered": answered.task_id,
            "handed_over": handed_over.task_id,
            "under_way": under_way.task_id,
            "failed": failed.task_id,
            "queued": tasks[4].task_id,
        }
        print(json.dumps(names), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


async def take(state: SqliteState, node_id: int) -> Task:
    task = await state.take_task_ins(node_id, "c1")
    assert task is not None
    return attrs.evolve(task)


trio.run(main, sys.argv[1])
