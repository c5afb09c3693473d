"""A whole SuperLink that serves Flower 1.35 and later: real ports, real HTTP, real gRPC."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import time
from functools import partial
from pathlib import Path
from typing import TypeVar

import attrs
import grpc
import pytest
import trio
from google.protobuf.message import Message
from peering.parcels import bundle
from signing import Signer, SuperExecSigner

from superlink_trio import ConfigErrors, SuperLink, SuperLinkConfig, run_superlink
from superlink_trio.config import Address
from superlink_trio.state.sqlite.backup import back_up
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


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    return path


def with_superexecs(**values: object) -> SuperLinkConfig:
    return SuperLinkConfig(
        insecure=True,
        driver_api_address="127.0.0.1:0",
        grpc_rere_fleet_api_address="127.0.0.1:0",
        port=0,
        isolation="process",
        **values,  # type: ignore[arg-type]
    )


async def post(
    link: SuperLink,
    path: str,
    request: Message,
    headers: dict[str, str] | None = None,
    address: Address | None = None,
) -> tuple[int, bytes]:
    response, body = await ask(link, path, request, headers, address)
    return response.status, body


async def ask(
    link: SuperLink,
    path: str,
    request: Message,
    headers: dict[str, str] | None = None,
    address: Address | None = None,
) -> tuple[http.client.HTTPResponse, bytes]:
    address = address or link.flower_address
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


async def test_what_listens_already_is_its_port(nursery: trio.Nursery) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        config = with_superexecs()
        link = await nursery.start(partial(run_superlink, config, sockets={"host": [given]}))
        at = Address(*given.getsockname())
        status, _ = await post(link, "/v1/control/list-runs", pb.ListRunsRequest(), address=at)
        assert status == 200
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


ACQUIRE = pb.AcquireTaskRequest(supported_task_types=["flwr-serverapp"])


def signed(secret: bytes) -> dict[str, str]:
    return SuperExecSigner(secret).headers(ACQUIRE.SerializeToString(), time.time())


async def acquire(link: SuperLink, secret: bytes) -> pb.AcquireTaskResponse:
    status, body = await post(link, "/v1/runtime/acquire-task", ACQUIRE, signed(secret))
    assert status == 200
    return pb.AcquireTaskResponse.FromString(body)


async def test_a_run_is_left_to_a_superexec_that_has_the_secret(
    nursery: trio.Nursery, secret: Path
) -> None:
    config = with_superexecs(superexec_auth_secret_file=secret)
    link: SuperLink = await nursery.start(run_superlink, config)
    for headers in ({}, signed(b"wrong")):
        status, body = await post(link, "/v1/runtime/acquire-task", ACQUIRE, headers)
        assert (status, json.loads(body)["code"]) == (401, 1008)
    given: list[pb.AcquireTaskResponse] = []

    async def ask() -> None:
        given.append(await acquire(link, b"secret"))

    with trio.fail_after(10):
        async with trio.open_nursery() as asking:
            # It is held.
            asking.start_soon(ask)
            _, body = await post(link, "/v1/control/start-run", pb.StartRunRequest(fab=bundle()))
    run_id = pb.StartRunResponse.FromString(body).run_id
    [response] = given
    assert response.task.run_id == run_id
    token = {"flwr-task-token": response.token}
    status, body = await post(link, "/v1/runtime/pull-task-input", pb.PullTaskInputRequest(), token)
    assert (status, pb.PullTaskInputResponse.FromString(body).run.run_id) == (200, run_id)

    _, body = await post(link, "/v1/control/stop-run", pb.StopRunRequest(run_id=run_id))
    status, body = await post(link, "/v1/runtime/get-nodes", pb.GetNodesRequest(), token)
    assert status == 401
    secret.write_bytes(b"another")
    await link.reload()
    status, _ = await post(link, "/v1/runtime/acquire-task", ACQUIRE, signed(b"secret"))
    assert status == 401
    await link.stop()


async def test_a_run_that_a_superexec_has_goes_on_after_a_crash_and_not_after_a_stop(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    config = with_superexecs(database=str(tmp_path / "state.db"))
    before: SuperLink = await nursery.start(run_superlink, config)
    for _ in range(2):
        await post(before, "/v1/control/start-run", pb.StartRunRequest(fab=bundle()))
    token = {"flwr-task-token": (await acquire(before, b"")).token}
    await post(before, "/v1/runtime/pull-task-input", pb.PullTaskInputRequest(), token)
    # What a crash leaves: the file as it is at this moment.
    copy = tmp_path / "copy.db"
    await trio.to_thread.run_sync(back_up, config.database, str(copy))
    await before.stop()

    for database, status in ((str(copy), 200), (config.database, 401)):
        after: SuperLink = await nursery.start(
            run_superlink, attrs.evolve(config, database=database)
        )
        answered, _ = await post(after, "/v1/runtime/get-nodes", pb.GetNodesRequest(), token)
        assert answered == status
        # The one that waited waits still.
        assert (await acquire(after, b"")).token
        await after.stop()


async def test_a_superexec_is_told_why_it_is_given_nothing(link: SuperLink) -> None:
    status, body = await post(link, "/v1/runtime/acquire-task", ACQUIRE)
    assert status == 412
    assert "--isolation process" in json.loads(body)["detail"]
    await link.stop()


TOKEN = "0123456789abcdef" * 2


@pytest.fixture
async def ports(nursery: trio.Nursery, tmp_path: Path) -> SuperLink:
    """A SuperLink with ports for operators, who need a token."""
    tokens = tmp_path / "tokens"
    tokens.write_text(TOKEN)
    config = SuperLinkConfig(
        insecure=True,
        driver_api_address="127.0.0.1:0",
        grpc_rere_fleet_api_address="127.0.0.1:0",
        port=0,
        control_address="127.0.0.1:0",
        control_grpc_address="127.0.0.1:0",
        control_token_file=tokens,
    )
    link: SuperLink = await nursery.start(run_superlink, config)
    return link


async def test_operators_have_a_port_of_their_own(ports: SuperLink) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    status, body = await post(ports, "/v1/control/list-runs", pb.ListRunsRequest(), bearer)
    assert status == 501
    assert f"a port of its own: {ports.control_address}" in json.loads(body)["detail"]
    path, request, address = "/v1/control/list-runs", pb.ListRunsRequest(), ports.control_address
    status, _ = await post(ports, path, request, bearer, address)
    assert status == 200
    status, body = await post(ports, path, request, None, address)
    assert status == 401
    assert "Authorization: Bearer TOKEN" in json.loads(body)["detail"]
    status, body = await post(ports, "/v1/fleet/get-run", request, bearer, address)
    assert status == 501
    assert f"nodes connect to {ports.flower_address}" in json.loads(body)["detail"]
    status, body = await post(ports, "/v1/control/list-automations", request, bearer, address)
    assert status == 501
    assert "does not offer this" in json.loads(body)["detail"]
    await ports.stop()


async def test_operators_over_grpc(ports: SuperLink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with grpc.insecure_channel(str(ports.control_grpc_address)) as channel:

        def ask(method: str, request: Message, **metadata: str) -> bytes:
            call = channel.unary_stream(f"/flwr.proto.Control/{method}", None, None)
            sent = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
            *_, last = call(request.SerializeToString(), metadata=sent, timeout=20)
            return bytes(last)

        async def answer(method: str, request: Message, response: type[Response]) -> Response:
            shown = partial(ask, method, request, flwr_oidc_access_token=TOKEN)
            return response.FromString(await trio.to_thread.run_sync(shown))

        started = await answer("StartRun", pb.StartRunRequest(fab=bundle()), pb.StartRunResponse)
        listed = await answer("ListRuns", pb.ListRunsRequest(), pb.ListRunsResponse)
        assert set(listed.run_dict) == {started.run_id}

        with pytest.raises(grpc.RpcError) as caught:
            await trio.to_thread.run_sync(ask, "ListRuns", pb.ListRunsRequest())
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "was shown no token" in (caught.value.details() or "")
        with pytest.raises(grpc.RpcError) as caught:
            await answer("CreateInvitation", pb.ListRunsRequest(), pb.ListRunsResponse)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "are Flower's own" in (caught.value.details() or "")
    await ports.stop()


def test_others_are_served_knowingly_only() -> None:
    with pytest.raises(ConfigErrors) as caught:
        trio.run(run_superlink, SuperLinkConfig(host="0.0.0.0", port=0))
    assert "can be reached from other machines" in str(caught.value.faults[0])


def test_keys_are_nothing_without_tls() -> None:
    with pytest.raises(ConfigErrors) as caught:
        trio.run(run_superlink, SuperLinkConfig(port=0, enable_supernode_auth=True))
    assert "needs TLS" in str(caught.value.faults[0])
