"""Loads that a driver and a few nodes put on a SuperLink, call by call."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
from peering.client import Client, fleet, over_grpc
from peering.http2 import grpc_message
from peering.messages import record_set, task_ins, task_res

from superlink_trio.clientapp import RecordSet, decode, encode
from superlink_trio.wire import superlink_pb2 as pb

_PAYLOAD = record_set(bytes(100))
_OTHERS = 100
_PER_PUSH = 500
_WARM_UP = 10

Answer = TypeVar("Answer")


def _driver(address: str) -> Client:
    return Client(over_grpc(address, "Driver"))


def _fleet(address: str, *, rest: bool = False) -> Client:
    return fleet(address, rest=rest, timeout=120)


def prepared(address: str, folder: str, rest: bool) -> dict[str, dict[str, str | int]]:
    """Create a node and prepare calls of its own for h2load, each made once to see an error.

    Gives for each the file with the body to send, and the bytes that a good gRPC answer has.
    """
    node = _fleet(address, rest=rest)
    me = node.create_node()
    calls: dict[str, dict[str, str | int]] = {}
    for name, request in {
        "Ping": pb.PingRequest(node=me, ping_interval=30),
        "PullTaskIns": pb.PullTaskInsRequest(node=me),
    }.items():
        raw = request.SerializeToString()
        answer = grpc_message(node.send(name, raw))
        body = Path(folder, f"{name}{'-rest' if rest else ''}.body")
        body.write_bytes(raw if rest else grpc_message(raw))
        calls[name] = {"body": str(body), "answer_bytes": len(answer)}
    return calls


def online(address: str, number: int) -> dict[str, int]:
    """Wait until so many nodes are online."""
    driver = _driver(address)
    run_id = driver.create_run()
    while len(driver.nodes(run_id)) < number:
        time.sleep(0.1)
    return {"nodes": number}


def ways(
    driver_address: str, fleet_address: str, number: int, queued: list[int]
) -> dict[str, float]:
    """Send tasks there and back past a queue that grows.

    Gives the median of a task's way, in milliseconds, by the tasks queued for others.
    """
    driver, node = _driver(driver_address), _fleet(fleet_address)
    run_id = driver.create_run()
    others = cycle([node.create_node() for _ in range(_OTHERS)])
    me, in_queue, medians = node.create_node(), 0, {}

    def there_and_back() -> None:
        [task_id] = driver.push_tasks([task_ins(run_id, me, _PAYLOAD)])
        [task] = node.pull_tasks(me)
        node.push_results([task_res(task, _PAYLOAD)])
        [result] = driver.pull_results([task_id])
        if list(result.task.ancestry) != [task_id] or result.task.recordset != _PAYLOAD:
            sys.exit("a task came back with another task's result")

    for wanted in queued:
        while in_queue < wanted:
            driver.push_tasks([task_ins(run_id, next(others), _PAYLOAD)] * _PER_PUSH)
            in_queue += _PER_PUSH
        durations = islice(_durations(there_and_back), _WARM_UP, _WARM_UP + number)
        medians[str(wanted)] = 1000 * median(durations)
    return medians


def _durations(action: Callable[[], None]) -> Iterator[float]:
    while True:
        yield _timed(action)[0]


def _timed(action: Callable[[], Answer]) -> tuple[float, Answer]:
    start = time.perf_counter()
    answer = action()
    return time.perf_counter() - start, answer


def models(
    driver_address: str, fleet_address: str, megabytes: int, number: int
) -> dict[str, float]:
    """Push a model to every node, then let every node pull it.

    Gives the speed of either, in megabytes (10^6 bytes) a second.
    """
    driver, node = _driver(driver_address), _fleet(fleet_address)
    run_id, nodes = driver.create_run(), [node.create_node() for _ in range(number)]
    data = os.urandom(megabytes * 10**6)
    payload, pushing, pulling = record_set(data), 0.0, 0.0
    for me in nodes:
        push = pb.PushTaskInsRequest(task_ins_list=[task_ins(run_id, me, payload)])
        raw = push.SerializeToString()
        pushing += _timed(lambda: driver.send("PushTaskIns", raw))[0]  # noqa: B023 (called at once)
    for me in nodes:
        raw = pb.PullTaskInsRequest(node=me).SerializeToString()
        seconds, answer = _timed(lambda: node.send("PullTaskIns", raw))  # noqa: B023
        pulling += seconds
        if data not in answer:
            sys.exit("a node got something else than the model")
    return {"push": number * megabytes / pushing, "pull": number * megabytes / pulling}


def model_to_simulated(address: str, megabytes: int, number: int) -> dict[str, int]:
    """Send a model to simulated nodes that weigh it."""
    driver = _driver(address)
    run_id, size = driver.create_run(), megabytes * 10**6
    content = encode(RecordSet({"model": {"weights": np.zeros(size, np.uint8)}}))
    waiting = set[str]()
    for me in driver.nodes(run_id):
        waiting.update(driver.push_tasks([task_ins(run_id, me, content)]))
    if len(waiting) != number:
        sys.exit(f"{len(waiting)} nodes are online")
    while waiting:
        for answer in driver.pull_results(waiting):
            if decode(answer.task.recordset).metrics["arrays"]["bytes"] != size:
                sys.exit("a node got something else than the model")
            waiting.difference_update(answer.task.ancestry)
    return {"nodes": number}
