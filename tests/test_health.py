"""Health checks of a whole SuperLink, by the stub that probes and load balancers use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from certificates import Authority
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from operators import watched_config

from superlink_trio import ServerConfig, run_superlink, serve_rounds
from superlink_trio.config.address import Address
from superlink_trio.wire import superlink_pb2 as pb

SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)
SERVICES = ["", "flwr.proto.Driver", "flwr.proto.Fleet", "flwr.proto.GrpcAdapter"]


class Probe:
    """What asks a server how it is."""

    def __init__(self, address: Address | None, ca: bytes | None = None) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        if ca is None:
            self.channel = grpc.insecure_channel(str(address), options)
        else:
            credentials = grpc.ssl_channel_credentials(ca)
            self.channel = grpc.secure_channel(str(address), credentials, options)
        self._stub: Any = health_pb2_grpc.HealthStub(self.channel)

    async def check(self, service: str) -> int:
        request = health_pb2.HealthCheckRequest(service=service)
        answer = await trio.to_thread.run_sync(lambda: self._stub.Check(request, timeout=20))
        status: int = answer.status
        return status

    def watch(self, service: str) -> Iterator[Any]:
        watching: Iterator[Any] = self._stub.Watch(
            health_pb2.HealthCheckRequest(service=service), timeout=30
        )
        return watching


Open = Callable[..., Probe]


@pytest.fixture
def probe() -> Iterator[Open]:
    probes: list[Probe] = []

    def open_probe(*arguments: Any) -> Probe:
        probes.append(Probe(*arguments))
        return probes[-1]

    yield open_probe
    for each in probes:
        each.channel.close()


async def test_every_port_tells_of_every_service(nursery: trio.Nursery, probe: Open) -> None:
    link = await nursery.start(run_superlink, watched_config(admin_address=None))
    for address in (link.driver_address, link.fleet_address):
        asking = probe(address)
        assert [await asking.check(service) for service in SERVICES] == [SERVING] * 4
        with pytest.raises(grpc.RpcError) as caught:
            await asking.check("flwr.proto.Control")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await link.stop()


async def test_a_stop_is_told_to_who_watches_before_calls_are_drained(
    nursery: trio.Nursery, probe: Open
) -> None:
    link = await nursery.start(run_superlink, watched_config(admin_address=None, grace=10))
    told: list[int] = []
    ends: list[grpc.StatusCode] = []

    def watch(watching: Iterator[Any]) -> None:
        try:
            for answer in watching:
                told.append(answer.status)
                trio.from_thread.run_sync(begun.set)
        except grpc.RpcError as error:
            ends.append(error.code())

    begun = trio.Event()
    before = trio.current_time()
    async with trio.open_nursery() as watching:
        calls = probe(link.fleet_address).watch("flwr.proto.Fleet")
        watching.start_soon(trio.to_thread.run_sync, watch, calls)
        await begun.wait()
        await link.stop()
    assert (told[0], set(told[1:])) == (SERVING, {NOT_SERVING})
    assert ends == [grpc.StatusCode.UNAVAILABLE]
    assert trio.current_time() - before < 9, "a watch is not waited for"


async def test_a_service_that_is_not_served_is_not_known(
    nursery: trio.Nursery, probe: Open
) -> None:
    config = watched_config(
        admin_address=None, fleet_api_type="rest", rest_fleet_api_address="127.0.0.1:0"
    )
    link = await nursery.start(run_superlink, config)
    asking = probe(link.driver_address)
    assert await asking.check("flwr.proto.Driver") == SERVING
    with pytest.raises(grpc.RpcError, match=r"flwr\.proto\.Fleet"):
        await asking.check("flwr.proto.Fleet")
    await link.stop()


async def test_watches_do_not_keep_others_out(nursery: trio.Nursery, probe: Open) -> None:
    link = await nursery.start(run_superlink, watched_config(admin_address=None, max_calls=3))
    asking = probe(link.fleet_address)
    watches = []
    for _ in range(3):
        watches.append(asking.watch(""))
        answer = await trio.to_thread.run_sync(next, watches[-1])
        assert answer.status == SERVING
    request = pb.CreateNodeRequest(ping_interval=30).SerializeToString()
    create = asking.channel.unary_unary("/flwr.proto.Fleet/CreateNode", None, None)
    assert await trio.to_thread.run_sync(create, request)
    with pytest.raises(grpc.RpcError, match="gave its place"):
        await trio.to_thread.run_sync(next, watches[0])
    await link.stop()


@pytest.fixture
def secured(tmp_path: Path) -> tuple[Authority, dict[str, Any]]:
    """Give an authority, and the options of a SuperLink that asks nodes for their keys."""
    authority = Authority(tmp_path)
    authority.issue()
    key = ec.generate_private_key(ec.SECP384R1())
    private, public, listed = tmp_path / "key", tmp_path / "key.pub", tmp_path / "nodes.csv"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    private.chmod(0o600)
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    public.write_bytes(line + b"\n")
    listed.write_text("")
    keys = (listed, private, public)
    return authority, {"certificates": authority.files, "require_client_authentication": keys}


async def test_probes_need_no_key_where_nodes_do(
    nursery: trio.Nursery, probe: Open, secured: tuple[Authority, dict[str, Any]]
) -> None:
    authority, options = secured
    config = watched_config(admin_address=None, insecure=False, **options)
    link = await nursery.start(run_superlink, config)
    assert await probe(link.fleet_address, authority.pem).check("flwr.proto.Fleet") == SERVING
    assert await probe(link.driver_address, authority.pem).check("") == SERVING
    await link.stop()


async def test_rounds_without_a_superlink_are_probed_too(
    nursery: trio.Nursery, probe: Open
) -> None:
    serve = partial(serve_rounds, server_address="127.0.0.1:0", config=ServerConfig(num_rounds=1))
    federation = await nursery.start(serve)
    asking = probe(federation.address)
    for service in ("", "flwr.proto.FlowerService"):
        assert await asking.check(service) == SERVING
    federation.stop()
