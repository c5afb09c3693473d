"""The Driver API and the Fleet API as two processes over one database file."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from peering.client import Client, over_grpc
from peering.messages import task_ins, task_res

_SIDES = {
    "driver-api": "--driver-api-address",
    "fleet-api": "--grpc-rere-fleet-api-address",
}


@pytest.fixture
def addresses(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Where two processes listen, one side each."""
    processes = {}
    for side, option in _SIDES.items():
        command = [sys.executable, "-m", "superlink_trio", side, "--insecure"]
        command += ["--database", str(tmp_path / "state.db"), option, "127.0.0.1:0"]
        processes[side] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield {side: _address(process) for side, process in processes.items()}
    finally:
        for process in processes.values():
            process.terminate()
        statuses = []
        for process in processes.values():
            process.communicate()
            statuses.append(process.returncode)
    assert statuses == [0, 0]


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"API on (\S+)", line)
        if found:
            return found[1]
    raise AssertionError("it ended before it was ready")


@pytest.mark.alone
async def test_held_calls_are_answered_across_processes(addresses: dict[str, str]) -> None:
    thread = trio.to_thread.run_sync
    driver = Client(over_grpc(addresses["driver-api"], "Driver", timeout=20))
    fleet = Client(over_grpc(addresses["fleet-api"], "Fleet", timeout=20))
    run_id = await thread(driver.create_run)
    me = await thread(fleet.create_node)
    assert list(await thread(driver.nodes, run_id)) == [me]

    async def work() -> None:
        for _ in range(10):
            [asked] = await thread(fleet.pull_tasks, me)
            await thread(fleet.push_results, [task_res(asked, b"result")])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        for _ in range(10):
            pushed_at = time.monotonic()
            task_ids = await thread(driver.push_tasks, [task_ins(run_id, me)])
            assert len(await thread(driver.pull_results, task_ids)) == 1
            assert time.monotonic() - pushed_at < 2, "no hold ran out"
    await thread(fleet.delete_node, me)
    assert not await thread(driver.nodes, run_id)
