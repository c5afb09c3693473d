"""The low-level driver of the installed release, under one name and signature for all of them."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

from flwr.common.grpc import create_channel
from flwr.proto.driver_pb2 import CreateRunRequest
from flwr.proto.driver_pb2_grpc import DriverStub

RELEASE = tuple(int(part) for part in version("flwr").split("."))


def stub(address: str) -> Any:
    return DriverStub(create_channel(server_address=address, insecure=True))


def connect(address: str) -> Any:
    """Give a driver that has a run of its own."""
    if RELEASE < (1, 9):
        from flwr.server.driver import Driver

        return Driver(driver_service_address=address)
    from flwr.server.driver import GrpcDriver

    if RELEASE < (1, 10):
        return GrpcDriver(driver_service_address=address)
    run_id = stub(address).CreateRun(CreateRunRequest()).run_id
    return GrpcDriver(run_id=run_id, driver_service_address=address)


def wait_for_nodes(driver: Any, number: int) -> list[int]:
    """Wait until this many nodes are online; there is nothing in the protocol to wait on."""
    while len(node_ids := driver.get_node_ids()) != number:
        time.sleep(0.1)
    return list(node_ids)
