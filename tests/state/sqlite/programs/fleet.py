"""Be a fleet: register a node, and do with its tasks what the argument says.

`hold`: take one and keep it. `finish`: take one, confirm and answer it.
"""

from __future__ import annotations

import json
import sys
import time

import trio
from builders import answer_to

from superlink_trio.state import open_state


def tell(value: object) -> None:
    print(json.dumps(value), flush=True)


async def main(database: str, what: str) -> None:
    state = open_state(database)
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: state.serve(stopping=stopping, task_status=task_status)
        )
        node_id = await state.create_node(30.0)
        tell(node_id)
        with state.attend(node_id):
            await state.await_task_ins(node_id)
        tell(time.time())
        task = await state.take_task_ins(node_id, "c1")
        assert task is not None
        if what == "finish":
            await state.confirm_task_ins(task)
            await state.store_task_res(answer_to(task, now=time.time()))
        tell(task.task_id)
        await trio.to_thread.run_sync(sys.stdin.readline)
        stopping.set()


trio.run(main, sys.argv[1], sys.argv[2])
