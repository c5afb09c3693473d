"""The Driver API and the Fleet API as two processes over one database file."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from builders import pb_node, pb_task_ins, pb_task_res

from superlink_trio.wire import superlink_pb2 as pb

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


class Client:
    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)

    async def __call__(self, name: str, request: Any, kind: Any) -> Any:
        call = self.channel.unary_unary(
            f"/flwr.proto.{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=kind.FromString,
        )
        return await trio.to_thread.run_sync(lambda: call(request, timeout=20))


@pytest.mark.alone
async def test_held_calls_are_answered_across_processes(addresses: dict[str, str]) -> None:
    driver, fleet = Client(addresses["driver-api"]), Client(addresses["fleet-api"])
    run = await driver("Driver/CreateRun", pb.CreateRunRequest(), pb.CreateRunResponse)
    created = await fleet(
        "Fleet/CreateNode", pb.CreateNodeRequest(ping_interval=60), pb.CreateNodeResponse
    )
    me = created.node.node_id
    nodes = await driver(
        "Driver/GetNodes", pb.GetNodesRequest(run_id=run.run_id), pb.GetNodesResponse
    )
    assert [node.node_id for node in nodes.nodes] == [me]

    async def work() -> None:
        for _ in range(10):
            pull = pb.PullTaskInsRequest(node=pb_node(me))
            pulled = await fleet("Fleet/PullTaskIns", pull, pb.PullTaskInsResponse)
            [asked] = pulled.task_ins_list
            push = pb.PushTaskResRequest(task_res_list=[pb_task_res(asked)])
            await fleet("Fleet/PushTaskRes", push, pb.PushTaskResResponse)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        for _ in range(10):
            pushed_at = time.monotonic()
            push = pb.PushTaskInsRequest(task_ins_list=[pb_task_ins(run.run_id, me)])
            pushed = await driver("Driver/PushTaskIns", push, pb.PushTaskInsResponse)
            pull = pb.PullTaskResRequest(task_ids=pushed.task_ids)
            pulled = await driver("Driver/PullTaskRes", pull, pb.PullTaskResResponse)
            assert len(pulled.task_res_list) == 1
            assert time.monotonic() - pushed_at < 2, "no hold ran out"
    driver.channel.close()
    fleet.channel.close()
