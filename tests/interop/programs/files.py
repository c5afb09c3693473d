"""Work on a database file with Flower's own SqliteState, of whichever release this runs in.

`write FILE`: a run, a node (with a key where the release knows keys), and tasks: one that was
delivered and answered, one that was delivered, and queued ones. `read FILE RUN NODE ASKED`: what
there is for the node, and as an answer to the task ASKED; then a new run and a task for it.
"""

from __future__ import annotations

import inspect
import json
import sys
import time
from typing import Any
from uuid import UUID

from flwr.proto.node_pb2 import Node
from flwr.proto.recordset_pb2 import RecordSet
from flwr.proto.task_pb2 import Task, TaskIns, TaskRes
from flwr.server.superlink.state.sqlite_state import SqliteState


def recordset(text: str) -> RecordSet:
    content = RecordSet()
    content.configs[text].SetInParent()
    return content


def task_ins(run_id: int, node_id: int, text: str) -> TaskIns:
    now = time.time()
    task = Task(
        producer=Node(node_id=0, anonymous=True),
        consumer=Node(node_id=node_id, anonymous=node_id == 0),
        created_at=now,
        pushed_at=now,
        ttl=3600.0,
        task_type="train",
        recordset=recordset(text),
    )
    return TaskIns(group_id="g", run_id=run_id, task=task)


def task_res(asked: TaskIns, text: str) -> TaskRes:
    now = time.time()
    task = Task(
        producer=asked.task.consumer,
        consumer=asked.task.producer,
        created_at=now,
        pushed_at=now,
        ttl=60.0,
        ancestry=[asked.task_id],
        task_type=asked.task.task_type,
        recordset=recordset(text),
    )
    return TaskRes(group_id=asked.group_id, run_id=asked.run_id, task=task)


def create_run(state: Any) -> int:
    wanted = inspect.signature(state.create_run).parameters
    known = {
        "fab_id": "me/app",
        "fab_version": "1.2.3",
        "fab_hash": None,
        "override_config": {"lr": 0.5},
    }
    run_id: int = state.create_run(**{name: known[name] for name in wanted})
    return run_id


def create_node(state: Any) -> int:
    keyed = {"public_key": b"key"} if has_keys(state) else {}
    node_id: int = state.create_node(30.0, **keyed)
    return node_id


def has_keys(state: Any) -> bool:
    return "public_key" in inspect.signature(state.create_node).parameters


def write(state: Any) -> object:
    run_id, node_id = create_run(state), create_node(state)
    if has_keys(state):
        state.store_server_private_public_key(b"private", b"public")
        # It was called differently before 1.11.
        store = getattr(state, "store_node_public_key", None) or state.store_client_public_key
        store(b"key")
    tasks = {name: task_ins(run_id, node_id, name) for name in ("answered", "delivered")}
    tasks["answered"].task_id = str(state.store_task_ins(tasks["answered"]))
    tasks["delivered"].task_id = str(state.store_task_ins(tasks["delivered"]))
    assert len(state.get_task_ins(node_id, limit=None)) == 2
    assert state.store_task_res(task_res(tasks["answered"], "answer"))
    for name, consumer in (("queued", node_id), ("anonymous", 0)):
        tasks[name] = task_ins(run_id, consumer, name)
        tasks[name].task_id = str(state.store_task_ins(tasks[name]))
    return {
        "run": run_id,
        "node": node_id,
        "tasks": {name: task.task_id for name, task in tasks.items()},
    }


def read(state: Any, run_id: int, node_id: int, asked_id: str) -> object:
    run = state.get_run(run_id) if hasattr(state, "get_run") else None
    taken = state.get_task_ins(node_id, limit=None)
    answers = state.get_task_res({UUID(asked_id)}, limit=None)
    node_ids = sorted(state.get_nodes(run_id))
    keys = [state.get_node_id(b"key"), state.get_server_private_key()] if has_keys(state) else None
    new_run = create_run(state)
    pushed = state.store_task_ins(task_ins(new_run, node_id, "of the reference"))
    return {
        "run": None if run is None else str(run),
        "nodes": node_ids,
        "taken": [(task.task_id, *task.task.recordset.configs) for task in taken],
        "answers": [list(answer.task.recordset.configs) for answer in answers],
        "keys": keys and [keys[0], keys[1].decode()],
        "pushed": str(pushed),
    }


def main(what: str, file: str, *arguments: str) -> None:
    state = SqliteState(file)
    state.initialize()
    if what == "write":
        print(json.dumps(write(state)))
    else:
        run_id, node_id, asked_id = arguments
        print(json.dumps(read(state, int(run_id), int(node_id), asked_id)))


main(*sys.argv[1:])
