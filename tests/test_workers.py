"""A SuperLink of several processes: `--workers N`, over real processes and a file."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest
import trio
from peering.client import Client, NotAnswered, over_grpc
from peering.messages import task_ins, task_res
from peering.processes import ANY_PORT, OURS, Program, lines_of, running
from prometheus_client.parser import text_string_to_metric_families

from superlink_trio.wire import superlink_pb2 as pb

T = TypeVar("T")

_thread = trio.to_thread.run_sync


@attrs.frozen
class Served:
    """A SuperLink of two workers."""

    program: Program
    ready: dict[str, Any]

    def client(self, side: str) -> Client:
        """Give a client with a connection of its own, so that any worker may have it."""
        address = self.ready[f"{side.lower()}_address"]
        return Client(over_grpc(address, side, timeout=20, alone=True))

    def get(self, path: str) -> str:
        """Give what operators find at a path."""
        host, _, port = self.ready["admin_address"].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        connection.request("GET", path)
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def figures(self) -> dict[str, float]:
        """Give the figures for Prometheus, by name and labels in the order of their names."""
        return {
            f"{sample.name}{[value for _, value in sorted(sample.labels.items())]}": sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
        }

    async def until(self, seen: Callable[[], bool]) -> None:
        """Wait until something can be seen; there is nobody to tell of it."""
        while True:
            if await _thread(seen):
                return
            await trio.sleep(0.02)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Give the log's lines so far that say so."""
        return [line for line in lines_of(self.program.lines) if event in line["event"]]


@asynccontextmanager
async def two_workers(folder: Path, *options: str | Path) -> AsyncIterator[Served]:
    fixed = ("--insecure", "--log-format", "json", "--workers", "2")
    places = ("--driver-api-address", ANY_PORT, "--fleet-api-address", ANY_PORT)
    where = ("--database", folder / "state.db", "--admin-address", ANY_PORT)
    async with running("SuperLink", *OURS, *fixed, *places, *where, *options) as program:
        with trio.fail_after(60):
            yield Served(program, await program.report("driver_address"))


async def stopped(served: Served) -> float:
    """Stop it, and see that nothing of it is left, nor anything but lines of JSON.

    Give the seconds that this took.
    """
    workers = served.program.children()
    seconds = await served.program.terminate()
    assert await served.program.end() == 0
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    lines = [json.loads(line) for line in served.program.lines if line]
    assert {line.get("worker") for line in lines} >= {None, 1}
    return seconds


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
    async with two_workers(tmp_path) as served:
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
    async with two_workers(tmp_path) as served:
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
    async with two_workers(tmp_path) as served:
        workers = served.program.children()
        assert len(workers) == 2
        served.program.process.kill()
        await served.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


async def test_all_of_them_take_what_a_reload_changes_and_the_log_says_it_once(
    tmp_path: Path,
) -> None:
    file = tmp_path / "superlink.toml"
    file.write_text("hold = 30\n")
    async with two_workers(tmp_path, "--config", file) as served:
        fleets = [served.client("Fleet") for _ in range(4)]
        nodes = [await _thread(fleet.create_node) for fleet in fleets]
        file.write_text("hold = 0\n")
        served.program.process.send_signal(signal.SIGHUP)
        await served.program.line("All workers have read again what there is")
        with trio.fail_after(10):
            for fleet, me in zip(fleets, nodes, strict=True):
                assert await _thread(fleet.pull_tasks, me) == []
        assert len(served.lines("--hold is 0 now")) == 1
        await stopped(served)
