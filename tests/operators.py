"""A SuperLink with an admin surface, and what asks it."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any

import attrs
import trio
from peering import client
from peering.messages import task_ins, task_res

from superlink_trio import SuperLink, SuperLinkConfig


def watched_config(**changes: Any) -> SuperLinkConfig:
    addresses = dict.fromkeys(
        ("driver_api_address", "grpc_rere_fleet_api_address", "admin_address"), "127.0.0.1:0"
    )
    return SuperLinkConfig(**{"insecure": True, **addresses, **changes})


@attrs.frozen
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: str


async def ask(link: SuperLink, method: str, path: str, **headers: str) -> Answer:
    connection = _connection(link)

    def exchange() -> Answer:
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode())
        finally:
            connection.close()

    return await trio.to_thread.run_sync(exchange)


async def get(link: SuperLink, path: str, **headers: str) -> tuple[int, str]:
    """Give an answer's status and text."""
    answer = await ask(link, "GET", path, **headers)
    return answer.status, answer.body


async def follow(link: SuperLink, first: trio.Event) -> list[str]:
    """Read the stream of events to its end; give their names. Sets `first` at the first one."""
    connection = _connection(link)

    def read() -> list[str]:
        names = []
        connection.request("GET", "/events")
        with connection.getresponse() as response:
            for line in response:
                if line.startswith(b"event: "):
                    names.append(line.removeprefix(b"event: ").decode().strip())
                    trio.from_thread.run_sync(first.set)
        connection.close()
        return names

    return await trio.to_thread.run_sync(read)


def _connection(link: SuperLink) -> http.client.HTTPConnection:
    address = link.admin_address
    assert address is not None
    return http.client.HTTPConnection(address.host, address.port, timeout=20)


def a_round(link: SuperLink, kind: str = "train") -> Iterator[None]:
    """Have a node work on a task; go on when it has it, and when its answer was collected."""
    driver = client.Client(client.over_grpc(str(link.driver_address), "Driver", timeout=20))
    fleet = client.Client(client.over_grpc(str(link.fleet_address), "Fleet", timeout=20))
    node, run_id = fleet.create_node(), driver.create_run()
    asked = task_ins(run_id, node)
    asked.task.task_type = kind
    task_ids = driver.push_tasks([asked])
    [task] = fleet.pull_tasks(node)
    yield
    fleet.push_results([task_res(task, b"model")])
    driver.pull_results(task_ids)
