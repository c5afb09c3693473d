"""The log of a whole SuperLink: which call each line belongs to, whatever carries the call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import pytest
import trio
from builders import pb_task_ins, pb_task_res
from peering.client import Client, Send, over_grpc, over_rest

from superlink_trio import SuperLink, SuperLinkConfig, run_superlink
from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.tasks import new_task_id


def over_adapter(address: str) -> Send:
    channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
    call = channel.unary_unary("/flwr.proto.GrpcAdapter/SendReceive", None, None)

    def send(name: str, request: bytes) -> bytes:
        container = pb.MessageContainer(
            grpc_message_name=f"{name}Request", grpc_message_content=request
        )
        raw = call(container.SerializeToString(), timeout=20)
        return pb.MessageContainer.FromString(raw).grpc_message_content

    return send


WAYS: dict[str, Callable[[str], Send]] = {
    "grpc-rere": partial(over_grpc, service="Fleet"),
    "grpc-adapter": over_adapter,
    "rest": over_rest,
}


@pytest.mark.parametrize("way", WAYS)
async def test_every_line_says_which_call_it_belongs_to(
    way: str, nursery: trio.Nursery, json_log: Callable[[], list[dict[str, Any]]]
) -> None:
    config = SuperLinkConfig(
        driver_api_address="127.0.0.1:0",
        grpc_rere_fleet_api_address="127.0.0.1:0",
        rest_fleet_api_address="127.0.0.1:0",
        fleet_api_type="rest" if way == "rest" else "grpc-rere",
    )
    link: SuperLink = await nursery.start(run_superlink, config)

    def work() -> tuple[int, int, str]:
        driver = Client(over_grpc(str(link.driver_address), "Driver"))
        node = Client(WAYS[way](str(link.fleet_address)))
        me = node.create_node()
        run_id = driver.create_run()
        [task_id] = driver.push_tasks([pb_task_ins(run_id, me.node_id)])
        [task] = node.pull_tasks(me)
        unasked = pb_task_res(task)
        unasked.task.ancestry[:] = [new_task_id()]
        node.push_results([unasked])
        node.push_results([pb_task_res(task)])
        driver.pull_results([task_id])
        node.delete_node(me)
        return me.node_id, run_id, task_id

    node_id, run_id, task_id = await trio.to_thread.run_sync(work)
    await link.stop()
    lines = json_log()
    fields = {"node_id": str(node_id), "run_id": str(run_id), "round": "1", "task_id": task_id}

    calls = [line for line in lines if "outcome" in line]
    methods = ["CreateNode", "CreateRun", "PushTaskIns", "PullTaskIns"]
    methods += ["PushTaskRes", "PushTaskRes", "PullTaskRes", "DeleteNode"]
    # A pull is over when it is confirmed: the node may have made its next call meanwhile.
    assert sorted(line["method"] for line in calls) == sorted(methods)
    [pull] = [line for line in calls if line["method"] == "PullTaskIns"]
    assert fields.items() <= pull.items()

    numbers = Counter(line["call_id"] for line in lines if "call_id" in line)
    assert len(numbers) == len(methods)
    others = [line for line in lines if line["level"] == "debug" and line not in calls]
    assert all("transition" in line for line in others), "one line a call, and those of the parts"
    for words, known in (
        ("joined from", {"node_id"}),
        ("created", {"run_id"}),
        ("not taken", {"node_id", "run_id", "round"}),
        ("left", {"node_id"}),
    ):
        [line] = [line for line in lines if words in line["event"] and "outcome" not in line]
        assert line["call_id"] in numbers
        assert {name: fields[name] for name in known}.items() <= line.items()
