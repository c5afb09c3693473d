"""A SuperLink of several processes: `--workers N`, over real processes and a file."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from peering.client import Client, NotAnswered
from peering.messages import task_ins, task_res
from teams import Served, stopped, two_workers

from superlink_trio.wire import superlink_pb2 as pb

T = TypeVar("T")

_thread = trio.to_thread.run_sync


def persistent(call: Callable[[], T]) -> T:
    """Make a call as Flower's clients do: again, where nobody answers."""
    for _ in range(200):
        try:
            return call()
        except NotAnswered as error:
            if error.code != "UNAVAILABLE":
                raise
            time.sleep(0.02)
    raise AssertionError("nobody answers any more")


@pytest.mark.alone
async def test_they_serve_the_same_ports_and_wake_each_others_nodes(tmp_path: Path) -> None:
    async with two_workers(tmp_path / "state.db") as served:
        driver = served.client("Driver")
        run_id = await _thread(driver.create_run)
        fleets = [served.client("Fleet") for _ in range(8)]
        nodes = [await _thread(fleet.create_node) for fleet in fleets]
        online = await _thread(driver.nodes, run_id)
        assert {node.node_id for node in online} == {me.node_id for me in nodes}

        async def work(fleet: Client, me: pb.Node) -> None:
            for _ in range(3):
                [asked] = await _thread(fleet.pull_tasks, me)
                await _thread(fleet.push_results, [task_res(asked, b"result")])

        async with trio.open_nursery() as nursery:
            for fleet, me in zip(fleets, nodes, strict=True):
                nursery.start_soon(work, fleet, me)
            for _ in range(3):
                began = time.monotonic()
                asked = [task_ins(run_id, me) for me in nodes]
                ids = await _thread(served.client("Driver").push_tasks, asked)
                collected = 0
                while collected < len(ids):
                    collected += len(await _thread(driver.pull_results, ids))
                assert time.monotonic() - began < 2, "no hold ran out"

        figures = await _thread(served.figures)
        pushed = "superlink_call_duration_seconds_count['PushTaskIns', 'flwr.proto.Driver', 'OK']"
        assert figures[pushed] == 3
        assert figures["superlink_part_ready['superlink/worker-2/apis/fleet']"] == 1
        assert figures["superlink_nodes_online[]"] == 8
        assert figures["process_resident_memory_bytes['2']"] > 1e7
        status = json.loads(await _thread(served.get, "/status"))
        assert status["faults"] == []
        shown = {node["node_id"] for node in status["nodes"]["shown"]}
        assert shown == {str(me.node_id) for me in nodes}
        assert "worker 2, process" in await _thread(served.get, "/tasks")
        assert await stopped(served) < 5


async def test_one_that_is_killed_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    async with two_workers(tmp_path / "state.db") as served:
        run_id = await _thread(served.client("Driver").create_run)
        me = await _thread(served.client("Fleet").create_node)
        acknowledged: list[str] = []

        def push() -> None:
            for _ in range(100):
                # At most one of two equal pushes is acknowledged, which is the one that counts.
                acknowledged.extend(
                    persistent(lambda: served.client("Driver").push_tasks([task_ins(run_id, me)]))
                )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_thread, push)
            await trio.sleep(0.2)
            _, second = served.program.children()
            os.kill(second, signal.SIGKILL)
        await served.program.line("worker-2 failed: worker 2 was ended by SIGKILL")
        await served.program.line("worker-2 restarts in")
        await served.until(lambda: served.get("/readyz") == "ok\n")
        assert second not in served.program.children()
        taken: set[str] = set()
        while tasks := await _thread(partial(served.client("Fleet").pull_tasks, me)):
            taken |= {task.task_id for task in tasks}
            if taken >= set(acknowledged):
                break
        assert set(acknowledged) <= taken
        await stopped(served)


async def test_they_end_with_their_parent(tmp_path: Path) -> None:
    async with two_workers(tmp_path / "state.db") as served:
        workers = served.program.children()
        assert len(workers) == 2
        served.program.process.kill()
        await served.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def told_of_tasks(served: Served) -> dict[int | None, str]:
    """Give the trees of tasks that the log has, by the numbers of workers."""
    lines = served.lines("SIGQUIT: the tasks, and where they wait")
    return {line.get("worker"): line["exception"] for line in lines}


async def test_a_signal_to_the_parent_is_for_all_and_a_reload_is_told_once(
    tmp_path: Path,
) -> None:
    file = tmp_path / "superlink.toml"
    file.write_text("hold = 30\n")
    async with two_workers(tmp_path / "state.db", "--config", file) as served:
        fleets = [served.client("Fleet") for _ in range(4)]
        nodes = [await _thread(fleet.create_node) for fleet in fleets]
        file.write_text("hold = 0\n")
        served.program.process.send_signal(signal.SIGHUP)
        await served.program.line("All workers have read again what there is")
        with trio.fail_after(10):
            for fleet, me in zip(fleets, nodes, strict=True):
                assert await _thread(fleet.pull_tasks, me) == []
        assert len(served.lines("--hold is 0 now")) == 1
        served.program.process.send_signal(signal.SIGQUIT)
        await served.until(lambda: {None, 1, 2} <= told_of_tasks(served).keys())
        assert "fleet" in told_of_tasks(served)[2]
        await stopped(served)
