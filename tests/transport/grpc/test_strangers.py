"""Calls of what a gRPC port does not serve."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
import trio

from superlink_trio import SuperLink, SuperLinkConfig, run_superlink
from superlink_trio.config import Address
from superlink_trio.transport.grpc import strangers


async def refusal(address: Address | None, path: str) -> tuple[grpc.StatusCode, str]:
    options = [("grpc.use_local_subchannel_pool", 1)]

    def call() -> tuple[grpc.StatusCode, str]:
        with grpc.insecure_channel(str(address), options) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(path, None, None)(b"x" * 1000, timeout=20)
            return caught.value.code(), caught.value.details() or ""

    return await trio.to_thread.run_sync(call)


async def test_who_calls_the_wrong_port_is_told_the_right_one(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", strangers.__name__)
    config = SuperLinkConfig(
        driver_api_address="127.0.0.1:0", grpc_rere_fleet_api_address="127.0.0.1:0"
    )
    link: SuperLink = await nursery.start(run_superlink, config)
    driver, fleet = link.driver_address, link.fleet_address
    for address, path, where in (
        (
            driver,
            "flwr.proto.Fleet/CreateNode",
            f"drivers connect here. Nodes connect to the Fleet API, which is on {fleet}",
        ),
        (
            driver,
            "flwr.proto.GrpcAdapter/SendReceive",
            f"drivers connect here. Nodes connect to the Fleet API, which is on {fleet}",
        ),
        (
            fleet,
            "flwr.proto.Driver/CreateRun",
            f"nodes connect here. Drivers connect to the Driver API, which is on {driver}",
        ),
        (
            driver,
            "flwr.proto.ServerAppIo/CreateRun",
            "it serves grpc.health.v1.Health and flwr.proto.Driver",
        ),
    ):
        code, details = await refusal(address, f"/{path}")
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert details == f"{path} is not served on this port: {where}."
    code, details = await refusal(fleet, "/flwr.proto.Fleet/PullMessages")
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert details.startswith("flwr.proto.Fleet/PullMessages is no call of the releases of Flower")
    await link.stop()
    first, second = caplog.messages
    assert first.startswith("A client on 127.0.0.1: flwr.proto.Fleet/CreateNode is not served")
    assert second.startswith("A client on 127.0.0.1: flwr.proto.Driver/CreateRun is not served")


async def test_names_are_cut_and_written_harmlessly(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    config = SuperLinkConfig(
        driver_api_address="127.0.0.1:0", grpc_rere_fleet_api_address="127.0.0.1:0"
    )
    link: SuperLink = await nursery.start(run_superlink, config)
    code, details = await refusal(link.driver_address, f"/{'é' * 5000}/x")
    await link.stop()
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert len(details) < 1000
    [line] = [line for line in caplog.messages if "is not served" in line]
    assert len(line) < 1000
