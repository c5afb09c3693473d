"""A whole SuperLink with certificates and keys, embedded and as a program: real ports, real TLS."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import grpc
import pytest
import trio
from builders import pb_task_ins, pb_task_res
from certificates import Authority
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from google.protobuf.message import Message

from superlink_trio import ConfigErrors, SuperLinkConfig, run_superlink
from superlink_trio.config.address import Address
from superlink_trio.fleet import presence
from superlink_trio.wire import superlink_pb2 as pb

ROOT = Path(__file__).parent.parent
METHODS: dict[str, Any] = {
    "CreateNode": pb.CreateNodeResponse,
    "CreateRun": pb.CreateRunResponse,
    "Ping": pb.PingResponse,
    "PullTaskIns": pb.PullTaskInsResponse,
}


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def public_line(key: ec.EllipticCurvePrivateKey) -> str:
    text = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return f"{text.decode()} node\n"


@attrs.define
class Peer:
    """A node with a key, or a driver with none, that speaks TLS."""

    channel: grpc.Channel
    key: ec.EllipticCurvePrivateKey = attrs.field(factory=new_key)
    secret: bytes = b""

    async def call(self, method: str, request: Message, service: str = "Fleet") -> Any:
        raw = request.SerializeToString(deterministic=True)
        pem = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        token = hmac.digest(self.secret, raw, hashlib.sha256)
        metadata = (
            ("public-key", base64.urlsafe_b64encode(pem).decode()),
            ("auth-token", base64.urlsafe_b64encode(token).decode()),
        )
        invoke = self.channel.unary_unary(f"/flwr.proto.{service}/{method}", None, None)
        call = partial(invoke.with_call, raw, metadata=metadata, timeout=20)
        answer, ended = await trio.to_thread.run_sync(call)
        for name, value in ended.initial_metadata():
            if name == "public-key":
                self._agree(base64.urlsafe_b64decode(value))
        return METHODS[method].FromString(answer) if method in METHODS else answer

    def _agree(self, pem: bytes) -> None:
        public = load_pem_public_key(pem)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        shared = self.key.exchange(ec.ECDH(), public)
        derived = HKDF(hashes.SHA256(), 32, salt=None, info=None).derive(shared)
        self.secret = base64.urlsafe_b64encode(derived)

    async def join(self) -> pb.Node:
        created = await self.call("CreateNode", pb.CreateNodeRequest(ping_interval=30))
        node: pb.Node = created.node
        return node

    async def status(self, method: str, request: Message, service: str = "Fleet") -> Any:
        with pytest.raises(grpc.RpcError) as caught:
            await self.call(method, request, service)
        return caught.value.code(), caught.value.details()


async def work(driver: Peer, peer: Peer, node: pb.Node) -> None:
    """Let a node do a task: its next pull is held then."""
    run = await driver.call("CreateRun", pb.CreateRunRequest(), "Driver")
    item = pb_task_ins(run.run_id, node.node_id)
    await driver.call("PushTaskIns", pb.PushTaskInsRequest(task_ins_list=[item]), "Driver")
    (asked,) = (await peer.call("PullTaskIns", pb.PullTaskInsRequest(node=node))).task_ins_list
    await peer.call("PushTaskRes", pb.PushTaskResRequest(task_res_list=[pb_task_res(asked)]))


DENIED = (grpc.StatusCode.UNAUTHENTICATED, "Access denied")


@attrs.frozen
class Files:
    """What a SuperLink with authentication is given."""

    authority: Authority

    @property
    def folder(self) -> Path:
        return self.authority.folder

    @property
    def keys(self) -> tuple[Path, Path, Path]:
        return self.folder / "keys.csv", self.folder / "superlink", self.folder / "superlink.pub"

    def make(self) -> None:
        self.authority.issue()
        key = new_key()
        text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        self.keys[1].write_bytes(text)
        self.keys[1].chmod(0o600)
        self.keys[2].write_text(public_line(key))
        self.admit()

    def admit(self, *peers: Peer) -> None:
        self.keys[0].write_text("".join(public_line(peer.key) for peer in peers))

    def config(self, **changes: Any) -> SuperLinkConfig:
        values = {
            "certificates": self.authority.files,
            "require_client_authentication": self.keys,
            "driver_api_address": "127.0.0.1:0",
            "grpc_rere_fleet_api_address": "127.0.0.1:0",
        }
        return SuperLinkConfig(**{**values, **changes})


@pytest.fixture
def files(tmp_path: Path) -> Files:
    files = Files(Authority(tmp_path))
    files.make()
    return files


Connect = Callable[..., Peer]


@pytest.fixture
def connect(files: Files) -> Iterator[Connect]:
    channels: list[grpc.Channel] = []

    def connect(address: Address | str, *key_and_chain: bytes) -> Peer:
        credentials = grpc.ssl_channel_credentials(files.authority.pem, *key_and_chain)
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels.append(grpc.secure_channel(str(address), credentials, options))
        return Peer(channels[-1])

    yield connect
    for channel in channels:
        channel.close()


async def test_a_listed_node_gets_in_and_a_stranger_does_not(
    files: Files, connect: Connect, nursery: trio.Nursery
) -> None:
    link = await nursery.start(run_superlink, files.config())
    node, stranger = connect(link.fleet_address), connect(link.fleet_address)
    files.admit(node)
    assert await node.status("CreateNode", pb.CreateNodeRequest()) == DENIED, "not listed yet"
    await link.reload()
    joined = await node.join()
    assert (await node.call("Ping", pb.PingRequest(node=joined, ping_interval=30))).success
    assert await stranger.status("CreateNode", pb.CreateNodeRequest()) == DENIED
    assert await stranger.status("Ping", pb.PingRequest(node=joined)) == DENIED
    await link.stop()


async def test_the_lines_of_an_authenticated_call_name_it(
    files: Files,
    connect: Connect,
    nursery: trio.Nursery,
    json_log: Callable[[], list[dict[str, Any]]],
) -> None:
    link = await nursery.start(run_superlink, files.config())
    node = connect(link.fleet_address)
    files.admit(node)
    await link.reload()
    joined = await node.join()
    ping = pb.PingRequest(node=pb.Node(node_id=7), ping_interval=30)
    assert await node.status("Ping", ping) == DENIED
    await link.stop()
    lines = json_log()
    [join] = [line for line in lines if "joined from" in line["event"]]
    [denied] = [line for line in lines if "node 7 is not the key's" in line["event"]]
    assert join["node_id"] == str(joined.node_id)
    assert denied["node_id"] == "7"
    calls = [line for line in lines if "outcome" in line]
    assert [line["call_id"] for line in calls] == [join["call_id"], denied["call_id"]]


async def test_revoking_ends_a_held_pull_and_leaves_the_others(
    files: Files, connect: Connect, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "AFTER_WORK", 1000.0)
    link = await nursery.start(run_superlink, files.config(hold=1000))
    kept, revoked = connect(link.fleet_address), connect(link.fleet_address)
    files.admit(kept, revoked)
    await link.reload()
    first, second = await kept.join(), await revoked.join()
    await work(connect(link.driver_address), revoked, second)
    ended: list[Any] = []

    async def pull(peer: Peer, node: pb.Node) -> None:
        ended.append(await peer.status("PullTaskIns", pb.PullTaskInsRequest(node=node)))

    async with trio.open_nursery() as pulls:
        pulls.start_soon(pull, revoked, second)
        # Long enough for the pull to be held: a call of the same connection goes there and back.
        await revoked.call("Ping", pb.PingRequest(node=second, ping_interval=30))
        files.admit(kept)
        await link.reload()
    assert ended == [DENIED]
    assert (await kept.call("Ping", pb.PingRequest(node=first, ping_interval=30))).success
    await link.stop()


async def test_what_is_not_sound_leaves_things_as_they_were(
    files: Files, connect: Connect, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    link = await nursery.start(run_superlink, files.config())
    node = connect(link.fleet_address)
    files.admit(node)
    await link.reload()
    joined = await node.join()
    files.keys[0].write_text("nonsense")
    files.authority.sources.key.write_text("nonsense")
    caplog.clear()
    await link.reload()
    assert len(caplog.messages) == 2
    assert "The certificates for gRPC stay as they were" in caplog.messages[0]
    assert "The list of nodes' keys stays as it was" in caplog.messages[1]
    assert "row 1, column 1" in caplog.messages[1]
    assert (await node.call("Ping", pb.PingRequest(node=joined, ping_interval=30))).success
    again = connect(link.fleet_address)
    assert await again.status("CreateNode", pb.CreateNodeRequest()) == DENIED, "TLS still works"
    await link.stop()


async def test_the_adapter_is_no_way_around(
    files: Files, connect: Connect, nursery: trio.Nursery
) -> None:
    link = await nursery.start(run_superlink, files.config())
    peer = connect(link.fleet_address)
    content = pb.CreateNodeRequest(ping_interval=30).SerializeToString()
    container = pb.MessageContainer(
        grpc_message_name="CreateNodeRequest", grpc_message_content=content
    )
    code, why = await peer.status("SendReceive", container, "GrpcAdapter")
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "use grpc-rere" in why
    await link.stop()


async def test_drivers_need_a_certificate_and_nodes_do_not(
    files: Files, connect: Connect, nursery: trio.Nursery, tmp_path_factory: Any
) -> None:
    drivers = Authority(tmp_path_factory.mktemp("drivers"))
    drivers.issue()
    config = files.config(
        driver_client_ca=drivers.folder / "ca.pem", require_client_authentication=None
    )
    link = await nursery.start(run_superlink, config)
    driver = connect(link.driver_address, *drivers.client())
    await driver.call("CreateRun", pb.CreateRunRequest(), "Driver")
    for anybody in (
        connect(link.driver_address),
        connect(link.driver_address, *files.authority.client()),
    ):
        code, _ = await anybody.status("CreateRun", pb.CreateRunRequest(), "Driver")
        assert code is grpc.StatusCode.UNAVAILABLE
    await connect(link.fleet_address).join()
    await link.stop()


async def test_without_credentials_there_is_nothing_to_reload(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    config = SuperLinkConfig(
        insecure=True, driver_api_address="127.0.0.1:0", grpc_rere_fleet_api_address="127.0.0.1:0"
    )
    link = await nursery.start(run_superlink, config)
    caplog.set_level(logging.INFO)
    await link.reload()
    assert caplog.messages == ["There are no keys or certificates to read again"]
    await link.stop()


async def test_every_fault_of_every_file_is_found_before_anything_starts(files: Files) -> None:
    files.authority.sources.certificate.write_text("nonsense")
    files.authority.sources.key.unlink()
    files.keys[0].write_text("nonsense")
    events: list[object] = []
    config = files.config(driver_client_ca=files.folder / "absent.pem")
    with pytest.raises(ConfigErrors) as caught:
        await run_superlink(config, observer=events.append)
    assert events == []
    told = [
        (fault.fields[0], Path(fault.problem.split(":")[0]).name) for fault in caught.value.faults
    ]
    assert told == [
        ("certificates", "server.pem"),
        ("certificates", "server.key"),
        ("certificates", "absent.pem"),
        ("require_client_authentication", "keys.csv"),
    ]


def command(files: Files) -> list[str]:
    return [
        *(sys.executable, "-m", "superlink_trio", "--log-format", "json"),
        *("--driver-api-address", "127.0.0.1:0", "--grpc-rere-fleet-api-address", "127.0.0.1:0"),
        *("--certificates", *map(str, files.authority.files)),
        *("--require-client-authentication", *map(str, files.keys)),
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_the_program_lists_the_faults_of_all_files(files: Files) -> None:
    for path in (*files.authority.files, *files.keys):
        path.write_text("nonsense")
    done = subprocess.run(
        command(files), stderr=subprocess.PIPE, text=True, timeout=60, env=environment()
    )
    assert done.returncode == 2
    *told, last = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    for path in (*files.authority.files, *files.keys):
        assert sum(f"{path}: " in text for text in told) == 1
    assert len(told) == 6
    assert last.startswith("stopped, ")


@pytest.fixture
def program(files: Files) -> Iterator[subprocess.Popen[str]]:
    program = subprocess.Popen(command(files), stderr=subprocess.PIPE, text=True, env=environment())
    yield program
    program.kill()
    program.communicate()


async def test_the_program_reloads_on_sighup(
    files: Files, connect: Connect, program: subprocess.Popen[str]
) -> None:
    assert program.stderr is not None
    log = map(json.loads, program.stderr)
    ready = next(entry for entry in log if "fleet_address" in entry)
    node = connect(ready["fleet_address"])
    files.admit(node)
    files.authority.issue()
    program.send_signal(signal.SIGHUP)
    next(entry for entry in log if entry.get("new") == 1)
    joined = await node.join()
    assert (await node.call("Ping", pb.PingRequest(node=joined))).success
    program.terminate()
    assert program.wait(20) == 0
