"""Send tasks there and back past a queue that grows: `cycles DRIVER FLEET NUMBER QUEUED…`.

Reports the median of a task's way, in milliseconds, for each number of tasks queued for others.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from statistics import median

from benchmarks.loads.flower import (
    Client,
    create_node,
    create_run,
    pull_task_ins,
    push_task_ins,
    push_task_res,
    record_set,
)
from superlink_trio.wire import superlink_pb2 as pb

_PAYLOAD = record_set(bytes(100))
_OTHERS = 100
_PER_PUSH = 500
_WARM_UP = 10


def main(driver_address: str, fleet_address: str, number: str, *queued: str) -> None:
    driver, fleet = Client("Driver", driver_address), Client("Fleet", fleet_address)
    run_id = create_run(driver)
    others = cycle([create_node(fleet) for _ in range(_OTHERS)])
    way = _way(driver, fleet, run_id)
    push, in_queue, medians = driver.call("PushTaskIns"), 0, {}
    for wanted in map(int, queued):
        while in_queue < wanted:
            push(push_task_ins(run_id, next(others), _PAYLOAD, _PER_PUSH))
            in_queue += _PER_PUSH
        medians[wanted] = 1000 * median(islice(_durations(way), _WARM_UP, _WARM_UP + int(number)))
    print(json.dumps(medians))


def _way(driver: Client, fleet: Client, run_id: int) -> Callable[[], None]:
    push_ins, pull_ins = driver.call("PushTaskIns"), fleet.call("PullTaskIns")
    push_res, pull_res = fleet.call("PushTaskRes"), driver.call("PullTaskRes")
    node = create_node(fleet)
    question = pull_task_ins(node)

    def there_and_back() -> None:
        pushed = push_ins(push_task_ins(run_id, node, _PAYLOAD))
        [task_id] = pb.PushTaskInsResponse.FromString(pushed).task_ids
        [task] = pb.PullTaskInsResponse.FromString(pull_ins(question)).task_ins_list
        push_res(push_task_res(task, _PAYLOAD))
        asked = pb.PullTaskResRequest(node=task.task.producer, task_ids=[task_id])
        raw = pull_res(asked.SerializeToString())
        [result] = pb.PullTaskResResponse.FromString(raw).task_res_list
        if list(result.task.ancestry) != [task_id] or result.task.recordset != _PAYLOAD:
            sys.exit("a task came back with another task's result")

    return there_and_back


def _durations(action: Callable[[], None]) -> Iterator[float]:
    while True:
        start = time.perf_counter()
        action()
        yield time.perf_counter() - start


if __name__ == "__main__":
    main(*sys.argv[1:])
