"""Be a simulation: register five nodes, tell their ids, and keep them online."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack

import trio

from superlink_trio.state import SqliteState


async def main(path: str) -> None:
    state = SqliteState(path)
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: state.serve(stopping=trio.Event(), task_status=task_status)
        )
        with ExitStack() as online:
            nodes = [await state.create_simulated_node() for _ in range(5)]
            for node_id in nodes:
                online.enter_context(state.attend(node_id))
            print(json.dumps(nodes), flush=True)
            await trio.sleep_forever()


trio.run(main, sys.argv[1])
