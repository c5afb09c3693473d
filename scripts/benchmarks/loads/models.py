"""Push a model to every node, then let every node pull it: `models DRIVER FLEET MEGABYTES NODES`.

Reports the speed of either, in megabytes (10^6 bytes) a second.
"""

from __future__ import annotations

import json
import os
import sys
import time

from benchmarks.loads.flower import (
    Call,
    Client,
    create_node,
    create_run,
    pull_task_ins,
    push_task_ins,
    record_set,
)


def main(driver_address: str, fleet_address: str, megabytes: str, number: str) -> None:
    driver, fleet = Client("Driver", driver_address), Client("Fleet", fleet_address)
    run_id = create_run(driver)
    nodes = [create_node(fleet) for _ in range(int(number))]
    data = os.urandom(int(megabytes) * 10**6)
    payload = record_set(data)
    push, pull = driver.call("PushTaskIns"), fleet.call("PullTaskIns")
    pushing = sum(_timed(push, push_task_ins(run_id, node, payload))[0] for node in nodes)
    pulling = 0.0
    for node in nodes:
        seconds, answer = _timed(pull, pull_task_ins(node))
        pulling += seconds
        if data not in answer:
            sys.exit("a node got something else than the model")
    total = len(nodes) * int(megabytes)
    print(json.dumps({"push": total / pushing, "pull": total / pulling}))


def _timed(call: Call, request: bytes) -> tuple[float, bytes]:
    start = time.perf_counter()
    answer = call(request)
    return time.perf_counter() - start, answer


if __name__ == "__main__":
    main(*sys.argv[1:])
