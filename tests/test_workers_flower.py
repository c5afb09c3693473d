"""Today's Flower at a SuperLink of two workers over PostgreSQL: whichever has a call answers it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from message_rounds import place_app, token_of
from peering.client import over_grpc
from peering.parcels import parcel
from peering.parties import (
    Connect,
    Node,
    Process,
    at,
    join,
    log_of,
    process_of,
    start_run,
    statuses,
    take_run,
)
from peering.processes import ANY_PORT
from peering.signing import Signer
from postgresql import the_server
from teams import Served, stopped, two_workers

from superlink_trio.processes.sessions import began_at
from superlink_trio.state.messages import SERVER
from superlink_trio.wire import messages_pb2 as pb

_thread = trio.to_thread.run_sync


def served_by(served: Served, event: str) -> set[Any]:
    """Give the workers that say so."""
    return {line.get("worker") for line in served.lines(event)}


def join_at_both(served: Served, connect: Connect) -> list[Node]:
    """Let nodes join, each call over a connection of its own, until both workers had one."""
    nodes: list[Node] = []
    while len(nodes) < 2 or served_by(served, "joined from") != {1, 2}:
        nodes.append(join(connect, Signer()))
        assert len(nodes) < 50, "one worker has all connections"
    return nodes


def work(node: Node, run_id: int) -> None:
    """Reply to one instruction."""
    asked = None
    while asked is None:
        asked = node.pull()
    list(node.pull_objects(run_id, asked[1]))
    node.confirm(asked[0])
    reply_to = asked[0].metadata.message_id
    node.push(parcel(run_id, source=node.node_id, to=SERVER, reply_to=reply_to))


def runs_over_grpc(served: Served) -> set[int]:
    """Ask for all runs, as `flwr ls` of older releases does, over a connection of its own."""
    send = over_grpc(served.ready["control_grpc_address"], "Control", timeout=20, alone=True)
    return set(pb.ListRunsResponse.FromString(send("ListRuns", b"")).run_dict)


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def round_of(process: Process, run_id: int, nodes: list[Node], name: str) -> None:
    """Send every node an instruction, and collect all replies."""
    now = time.time()
    parcels = [parcel(run_id, to=each.node_id, created_at=now, group_id=name) for each in nodes]
    asked = [message_id for one in parcels for message_id in process.push([one])]
    waiting = set(asked)
    while waiting:
        for reply, tree in process.pull(sorted(waiting)):
            assert all(content for _, content in process.pull_objects(run_id, tree))
            process.confirm(reply)
            waiting.remove(reply.metadata.reply_to_message_id)


@pytest.mark.alone
async def test_any_of_them_answers_any_call_and_operators_see_one() -> None:
    older = ("--control-grpc-address", ANY_PORT)
    options = ("--port", "0", "--isolation", "process", *older)
    async with two_workers(the_server().new_schema(), *options) as served:
        connect = at(served.ready["flower_address"])
        nodes = await _thread(join_at_both, served, connect)
        run_id = await _thread(start_run, connect)
        taken = await _thread(take_run, connect)
        assert taken is not None
        _, process = taken
        assert await _thread(process.begin) == run_id
        logs: list[str] = []

        async def follow() -> None:
            logs.append(await _thread(log_of, connect, run_id))

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(follow)
            for name in ("1", "2"):
                async with trio.open_nursery() as working:
                    for node in nodes:
                        working.start_soon(_thread, work, node, run_id)
                    await _thread(round_of, process, run_id, nodes, name)
            await _thread(process.log, "all of them have replied\n")
            await _see_one(served, run_id, len(nodes))
            await _thread(process.finish)
        assert [await _thread(runs_over_grpc, served) for _ in range(6)] == [{run_id}] * 6
        assert logs == ["all of them have replied\n"] * 6

        # Of what is held none keeps it from stopping.
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(_thread, node.pull)
            await served.until(lambda: _held(served) == len(nodes))
            assert await stopped(served) < 5


async def test_a_run_outlives_the_worker_that_has_started_it(tmp_path: Path) -> None:
    told = place_app(tmp_path)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    options = ("--port", "0", "--max-server-apps", "1")
    async with two_workers(the_server().new_schema(), *options, PATH=path) as served:
        connect = at(served.ready["flower_address"])
        run_id = await _thread(start_run, connect)
        process = process_of(connect, await _thread(token_of, told))
        assert await _thread(process.begin) == run_id
        waiting = await _thread(start_run, connect)
        node = await _thread(join, connect, Signer())
        first, _ = served.program.children()
        [app] = children_of(first)
        os.kill(first, signal.SIGKILL)
        await served.program.line("worker-1 failed: worker 1 was ended by SIGKILL")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_thread, work, node, run_id)
            await _thread(round_of, process, run_id, [node], "1")
        await served.program.line("worker-1 restarts in")
        await served.until(lambda: served.get("/readyz") == "ok\n")
        assert first not in served.program.children()
        assert (await _thread(statuses, connect))[waiting].status == "pending", "of two one runs"
        assert await _thread(process.heartbeat)
        assert await stopped(served) < 5
        assert began_at(app) is None


def _held(served: Served) -> float:
    return served.figures()["superlink_calls_held['flwr.proto.Fleet']"]


async def _see_one(served: Served, run_id: int, nodes: int) -> None:
    """See that what the workers share counts once, and that the rest adds up."""
    figures = await _thread(served.figures)
    assert figures["superlink_supernodes[]"] == nodes
    assert figures["superlink_supernodes_online[]"] == nodes
    assert figures["superlink_app_runs['running']"] == 1
    pushed = "superlink_call_duration_seconds_count['PushMessages', '{}', 'OK']"
    assert figures[pushed.format("flwr.proto.Runtime")] == 2 * nodes
    assert figures[pushed.format("flwr.proto.Fleet")] == 2 * nodes

    def settled() -> bool:
        flower = json.loads(served.get("/status"))["flower"]
        [run] = flower["shown_runs"]
        shown = {node["node_id"]: node["messages"] for node in flower["shown_nodes"]}
        last = run["round"]
        assert (flower["known"], flower["online"], len(shown)) == (nodes, nodes, nodes)
        assert (run["run_id"], last["round"], last["asked"]) == (str(run_id), "2", nodes)
        # They tell each other every second.
        return last["answered"] == nodes and not last["missing"] and not any(shown.values())

    await served.until(settled)
