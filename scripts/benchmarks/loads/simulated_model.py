"""Send a model to simulated nodes that weigh it: `simulated_model DRIVER MEGABYTES NODES`."""

from __future__ import annotations

import json
import sys

import numpy as np

from benchmarks.loads.flower import Client, create_run, push_task_ins
from superlink_trio.clientapp import RecordSet, decode, encode
from superlink_trio.wire import superlink_pb2 as pb


def main(address: str, megabytes: str, number: str) -> None:
    driver = Client("Driver", address)
    run_id, size = create_run(driver), int(megabytes) * 10**6
    content = encode(RecordSet({"model": {"weights": np.zeros(size, np.uint8)}}))
    push, pull = driver.call("PushTaskIns"), driver.call("PullTaskRes")
    raw = driver.call("GetNodes")(pb.GetNodesRequest(run_id=run_id).SerializeToString())
    waiting: set[str] = set()
    for node in pb.GetNodesResponse.FromString(raw).nodes:
        pushed = push(push_task_ins(run_id, node, content))
        waiting.update(pb.PushTaskInsResponse.FromString(pushed).task_ids)
    if len(waiting) != int(number):
        sys.exit(f"{len(waiting)} nodes are online")
    while waiting:
        asked = pb.PullTaskResRequest(node=pb.Node(anonymous=True), task_ids=waiting)
        answers = pb.PullTaskResResponse.FromString(pull(asked.SerializeToString())).task_res_list
        for answer in answers:
            if decode(answer.task.recordset).metrics["arrays"]["bytes"] != size:
                sys.exit("a node got something else than the model")
            waiting.difference_update(answer.task.ancestry)
    print(json.dumps({"nodes": int(number)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
