"""`ask.py ADDRESS NODES`: asks every node, through the driver and through the bare calls.

Prints the answers as one JSON line, waits for a line on standard input, and prints how many
nodes are online then.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from driving import connect, stub, wait_for_nodes
from flwr.common import GetPropertiesIns
from flwr.common.constant import MessageTypeLegacy
from flwr.common.recordset_compat import (
    getpropertiesins_to_recordset,
    recordset_to_getpropertiesres,
)
from flwr.common.serde import message_from_taskres, message_to_taskins
from flwr.proto.driver_pb2 import PullTaskResRequest, PushTaskInsRequest


def questions(driver: Any, node_ids: list[int], question: str) -> list[Any]:
    return [
        driver.create_message(
            content=getpropertiesins_to_recordset(GetPropertiesIns({"question": question})),
            message_type=MessageTypeLegacy.GET_PROPERTIES,
            dst_node_id=node_id,
            group_id="1",
        )
        for node_id in node_ids
    ]


def answers(replies: list[Any]) -> list[Any]:
    return [recordset_to_getpropertiesres(r.content).properties["answer"] for r in replies]


def by_bare_calls(address: str, driver: Any, messages: list[Any]) -> list[Any]:
    calls = stub(address)
    task_ins_list = [message_to_taskins(message) for message in messages]
    pushed = calls.PushTaskIns(PushTaskInsRequest(task_ins_list=task_ins_list))
    replies: list[Any] = []
    while len(replies) < len(messages):
        pulled = calls.PullTaskRes(PullTaskResRequest(node=driver.node, task_ids=pushed.task_ids))
        replies += [message_from_taskres(task_res) for task_res in pulled.task_res_list]
        time.sleep(0.1)
    return replies


def main() -> None:
    address, nodes = sys.argv[1], int(sys.argv[2])
    driver = connect(address)
    node_ids = wait_for_nodes(driver, nodes)
    replies = list(driver.send_and_receive(questions(driver, node_ids, "driver")))
    bare = by_bare_calls(address, driver, questions(driver, node_ids, "bare"))
    print(json.dumps({"driver": answers(replies), "bare": answers(bare)}), flush=True)
    sys.stdin.readline()
    print(json.dumps({"nodes": len(driver.get_node_ids())}), flush=True)


main()
