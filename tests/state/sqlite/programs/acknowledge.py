"""Do everything that has to outlast a power cut, one after the other, and say when each is done.

And with which of SQLite's levels of `synchronous` it was committed.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from functools import partial
from typing import Any

import trio
from builders import EPOCH, answer_to, task_ins
from peering.parcels import parcel

from superlink_trio.state import SqliteState
from superlink_trio.state.messages import SERVER, DurableMessages, NewRun
from superlink_trio.wire.messages import Outcome
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import TaskError

_SET = "PRAGMA synchronous = "

committed: set[str] = set()


class Watched(sqlite3.Connection):
    """Writes down at which level it commits."""

    level = "none"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.set_trace_callback(self.note)

    def note(self, statement: str) -> None:
        if statement.startswith(_SET):
            self.level = statement.removeprefix(_SET)
        elif statement == "COMMIT":
            committed.add(self.level)


def acknowledge(what: str) -> None:
    os.write(1, f"{what}: {'FULL' if 'FULL' in committed else committed}\n".encode())
    committed.clear()


async def main(path: str) -> None:
    state, stopping = SqliteState(path, clock=lambda: EPOCH), trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: state.serve(stopping=stopping, task_status=task_status)
        )
        acknowledge("open")
        run_id = await state.create_run(Run(fab_hash="h"), Fab(hash="h", content=b"bundle"))
        acknowledge("create_run")
        node_id = await state.create_node(30.0)
        acknowledge("create_node")
        await state.create_node(30.0, b"key")
        acknowledge("create_node with a key")
        await state.create_node(30.0, b"key")
        acknowledge("create_node with a known key")
        await state.bind_node(node_id, b"other key", readmit=True)
        acknowledge("bind_node")
        await state.ping(7, 30.0, readmit=True)
        acknowledge("ping of an unknown node")
        await state.heartbeat(8, readmit=True)
        acknowledge("heartbeat of an unknown node")
        await state.delete_node(8)
        acknowledge("delete_node")
        tasks = [task_ins(run_id, node_id), task_ins(run_id, node_id, content=bytes(100_000))]
        await state.store_task_ins(tasks)
        acknowledge("store_task_ins")
        await state.store_task_res(answer_to(tasks[0]))
        acknowledge("store_task_res")
        await state.store_error(tasks[1].task_id, TaskError(0, "x"), producer=None)
        acknowledge("store_error")
        await acknowledge_messages(state, nursery, stopping)
        stopping.set()


async def acknowledge_messages(
    state: SqliteState, nursery: trio.Nursery, stopping: trio.Event
) -> None:
    messages = DurableMessages(state)
    await nursery.start(
        lambda task_status: messages.serve(stopping=stopping, task_status=task_status)
    )
    acknowledge("open for messages")
    node_id = await messages.register_node(b"key")
    acknowledge("register_node")
    await messages.activate_node(b"key", 30.0)
    acknowledge("activate_node")
    assert await messages.admit_node(7, b"other key", readmit=True)
    acknowledge("admit_node")
    await messages.deactivate_node(7)
    acknowledge("deactivate_node")
    await messages.unregister_node(7)
    acknowledge("unregister_node")
    new = NewRun(fab=Fab(hash="f", content=b"bundle"), fab_id="me/app", fab_version="1")
    run_id = (await messages.create_run(new)).run_id
    acknowledge("create_run of today")
    claim = await messages.claim_run()
    assert claim is not None
    acknowledge("claim_run")
    await messages.begin_run(claim.token)
    acknowledge("begin_run")
    sent = parcel(run_id, to=node_id)
    await messages.push(run_id, SERVER, [sent.envelope])
    acknowledge("push")
    for number, (object_id, content) in enumerate(sent.objects.items()):
        await messages.put_object(run_id, SERVER, object_id, content)
        acknowledge(f"put_object {number}")
    await messages.finish_run(run_id, Outcome.COMPLETED)
    acknowledge("finish_run")


sqlite3.connect = partial(sqlite3.connect, factory=Watched)  # type: ignore[assignment] # a seam
trio.run(main, sys.argv[1])
