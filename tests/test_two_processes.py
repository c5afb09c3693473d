"""The Driver API and the Fleet API as two processes over one database file."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from peering.client import Client, over_grpc
from peering.messages import task_ins, task_res
from peering.processes import ANY_PORT, OURS, launching

_SIDES = {"driver": "--driver-api-address", "fleet": "--grpc-rere-fleet-api-address"}


@pytest.fixture
async def addresses(tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """Where two processes listen, one side each."""
    shared = ("--insecure", "--log-format", "json", "--database", tmp_path / "state.db")
    async with launching() as launch:
        programs = {
            side: await launch(side, *OURS, f"{side}-api", *shared, option, ANY_PORT)
            for side, option in _SIDES.items()
        }
        yield {
            side: (await program.report(f"{side}_address"))[f"{side}_address"]
            for side, program in programs.items()
        }
        for program in programs.values():
            await program.terminate()
            assert program.process.returncode == 0


@pytest.mark.alone
async def test_held_calls_are_answered_across_processes(addresses: dict[str, str]) -> None:
    thread = trio.to_thread.run_sync
    driver = Client(over_grpc(addresses["driver"], "Driver", timeout=20))
    fleet = Client(over_grpc(addresses["fleet"], "Fleet", timeout=20))
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
