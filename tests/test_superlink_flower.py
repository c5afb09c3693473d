"""A whole SuperLink that serves Flower 1.35 and later: real ports, real HTTP, real gRPC."""

from __future__ import annotations

import base64
import http.client
import json
import time
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
import trio
from control.test_api import bundle
from google.protobuf.message import Message
from signing import Signer

from superlink_trio import ConfigErrors, SuperLink, SuperLinkConfig, run_superlink
from superlink_trio.wire import messages_pb2 as pb

Response = TypeVar("Response", bound=Message)


@pytest.fixture
async def link(nursery: trio.Nursery) -> SuperLink:
    config = SuperLinkConfig(
        insecure=True,
        driver_api_address="127.0.0.1:0",
        grpc_rere_fleet_api_address="127.0.0.1:0",
        port=0,
    )
    link: SuperLink = await nursery.start(run_superlink, config)
    return link


async def post(
    link: SuperLink, path: str, request: Message, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    response, body = await ask(link, path, request, headers)
    return response.status, body


async def ask(
    link: SuperLink, path: str, request: Message, headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    address = link.flower_address
    assert address is not None

    def send() -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
        try:
            connection.request("POST", path, request.SerializeToString(), headers or {})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    return await trio.to_thread.run_sync(send)


async def test_a_run_without_flower_says_what_to_install(
    link: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    status, body = await post(link, "/v1/control/start-run", pb.StartRunRequest(fab=bundle()))
    assert status == 200
    run_id = pb.StartRunResponse.FromString(body).run_id
    # The log ends with the run.
    status, _ = await post(link, "/v1/control/stream-logs", pb.StreamLogsRequest(run_id=run_id))
    assert status == 200
    _, body = await post(link, "/v1/control/list-runs", pb.ListRunsRequest(run_id=run_id))
    run = pb.ListRunsResponse.FromString(body).run_dict[run_id]
    assert (run.status.status, run.status.sub_status) == ("finished", "failed")
    assert "pip install 'flwr>=1.39'" in run.status.details
    await link.stop()


async def test_a_node_that_has_proved_who_it_is_need_not_do_so_again(link: SuperLink) -> None:
    signer = Signer()
    headers = signer.headers(time.time())
    register = pb.RegisterNodeFleetRequest(public_key=signer.public)
    response, _ = await ask(link, "/v1/fleet/register-node", register, headers)
    cookie = (response.getheader("set-cookie") or "").partition(";")[0]
    activate = pb.ActivateNodeRequest(public_key=signer.public, heartbeat_interval=30)
    headers |= {"flwr-signature": "AAAA", "cookie": cookie}
    response, _ = await ask(link, "/v1/fleet/activate-node", activate, headers)
    assert (response.status, response.getheader("set-cookie")) == (200, None)
    del headers["cookie"]
    response, _ = await ask(link, "/v1/fleet/activate-node", activate, headers)
    assert response.status == 401


async def test_a_node_over_http_and_one_over_grpc(link: SuperLink) -> None:
    signer, other = Signer(), Signer()
    request = pb.RegisterNodeFleetRequest(public_key=signer.public)
    status, body = await post(link, "/v1/fleet/register-node", request, signer.headers(time.time()))
    assert status == 200
    assert pb.RegisterNodeFleetResponse.FromString(body).node_id

    address = link.fleet_address
    assert address is not None
    with grpc.insecure_channel(str(address)) as channel:
        register = channel.unary_unary(
            "/flwr.proto.Fleet/RegisterNode",
            request_serializer=pb.RegisterNodeFleetRequest.SerializeToString,
            response_deserializer=pb.RegisterNodeFleetResponse.FromString,
        )
        metadata = binary(other.headers(time.time()))
        response = await trio.to_thread.run_sync(
            lambda: register(
                pb.RegisterNodeFleetRequest(public_key=other.public), metadata=metadata, timeout=20
            )
        )
    assert response.node_id
    _, body = await post(link, "/v1/control/list-nodes", pb.ListNodesRequest())
    assert len(pb.ListNodesResponse.FromString(body).nodes_info) == 2
    await link.stop()


def binary(headers: dict[str, str]) -> tuple[tuple[str, str | bytes], ...]:
    """Give the headers of a signed call as gRPC's metadata carries them."""
    return tuple(
        (name, value) if name == "flwr-timestamp" else (f"{name}-bin", base64.b64decode(value))
        for name, value in headers.items()
    )


async def test_nodes_and_runs_are_there_after_a_restart(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    config = SuperLinkConfig(
        insecure=True,
        driver_api_address="127.0.0.1:0",
        grpc_rere_fleet_api_address="127.0.0.1:0",
        port=0,
        database=str(tmp_path / "state.db"),
        readmit=False,
    )
    signer = Signer()
    request = pb.RegisterNodeFleetRequest(public_key=signer.public)
    before: SuperLink = await nursery.start(run_superlink, config)
    _, body = await post(before, "/v1/fleet/register-node", request, signer.headers(time.time()))
    node_id = pb.RegisterNodeFleetResponse.FromString(body).node_id
    _, body = await post(before, "/v1/control/start-run", pb.StartRunRequest(fab=bundle()))
    run_id = pb.StartRunResponse.FromString(body).run_id
    await post(before, "/v1/control/stream-logs", pb.StreamLogsRequest(run_id=run_id))
    await before.stop()

    after: SuperLink = await nursery.start(run_superlink, config)
    _, body = await post(after, "/v1/control/list-runs", pb.ListRunsRequest())
    run = pb.ListRunsResponse.FromString(body).run_dict[run_id]
    assert (run.status.status, run.status.sub_status) == ("finished", "failed")
    heartbeat = pb.SendNodeHeartbeatRequest(node=pb.Node(node_id=node_id), heartbeat_interval=30.0)
    status, body = await post(
        after, "/v1/fleet/send-node-heartbeat", heartbeat, signer.headers(time.time())
    )
    assert (status, pb.SendNodeHeartbeatResponse.FromString(body).success) == (200, True)
    await after.stop()


async def test_what_is_not_offered_is_said(link: SuperLink) -> None:
    status, body = await post(link, "/v1/control/list-automations", pb.ListRunsRequest())
    assert status == 501
    assert "does not offer this" in json.loads(body)["detail"]
    await link.stop()


def test_others_are_served_knowingly_only() -> None:
    with pytest.raises(ConfigErrors) as caught:
        trio.run(run_superlink, SuperLinkConfig(host="0.0.0.0", port=0))
    assert "can be reached from other machines" in str(caught.value.faults[0])


def test_keys_are_nothing_without_tls() -> None:
    with pytest.raises(ConfigErrors) as caught:
        trio.run(run_superlink, SuperLinkConfig(port=0, enable_supernode_auth=True))
    assert "needs TLS" in str(caught.value.faults[0])
