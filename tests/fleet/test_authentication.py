"""Who gets in. Nodes here sign as Flower's do; what others may try is up to hypothesis as well."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from builders import EPOCH, pb_node, pb_task_res, task_ins
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from examples import at_most
from superlink_trio.credentials import NodeKeys
from superlink_trio.credentials.node_keys import NodeKey, ServerKey
from superlink_trio.fleet import fleet_api, refusing_adapter_api
from superlink_trio.fleet.authentication import authenticated
from superlink_trio.fleet.presence import AFTER_WORK
from superlink_trio.rpc import Api, Caller, Refused, Status
from superlink_trio.state import MemoryState, StateLimits
from superlink_trio.wire import recordset_pb2 as whole
from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.bulk import LARGE
from superlink_trio.wire.runs import Fab, Run

LIMIT = 1024 * 1024
SERVER = ServerKey(ec.generate_private_key(ec.SECP384R1()))


def header(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> str:
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return base64.urlsafe_b64encode(pem).decode()


@attrs.frozen
class Node:
    """A node's side of the protocol."""

    private: ec.EllipticCurvePrivateKey = attrs.field(
        factory=lambda: ec.generate_private_key(ec.SECP384R1())
    )

    @property
    def key(self) -> NodeKey:
        return NodeKey.of(self.private.public_key())

    @property
    def named(self) -> dict[str, str]:
        return {"public-key": header(self.private.public_key())}

    def token(self, message: bytes, server: str = SERVER.public.header) -> str:
        public = load_pem_public_key(base64.urlsafe_b64decode(server))
        assert isinstance(public, ec.EllipticCurvePublicKey)
        shared = self.private.exchange(ec.ECDH(), public)
        derived = HKDF(hashes.SHA256(), 32, salt=None, info=None).derive(shared)
        digest = hmac.digest(base64.urlsafe_b64encode(derived), message, hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode()

    def signed(self, message: bytes) -> dict[str, str]:
        return {**self.named, "auth-token": self.token(message)}


@attrs.frozen
class Gate:
    """The API under test, and what is behind it."""

    api: Api
    state: MemoryState
    keys: NodeKeys

    async def raw(self, name: str, request: bytes, metadata: Mapping[str, str]) -> bytes:
        caller = Caller("10.0.0.1:1", metadata)
        if name in self.api.unary:
            return await self.api.unary[name](request, caller)
        async with self.api.leased[name](request, caller) as answer:
            return answer

    async def call(self, node: Node, name: str, request: Message) -> bytes:
        raw = request.SerializeToString(deterministic=True)
        return await self.raw(name, raw, node.signed(raw))

    async def join(self, node: Node) -> int:
        answer = await self.raw("CreateNode", CREATE, node.named)
        return pb.CreateNodeResponse.FromString(answer).node.node_id

    async def work(self, node: Node, node_id: int) -> None:
        """Let a node do a task: its next pull is held then."""
        task = task_ins(await self.state.create_run(Run()), node_id)
        await self.state.store_task_ins([task])
        raw = await self.call(node, "PullTaskIns", pb.PullTaskInsRequest(node=pb_node(node_id)))
        (item,) = pb.PullTaskInsResponse.FromString(raw).task_ins_list
        await self.call(
            node, "PushTaskRes", pb.PushTaskResRequest(task_res_list=[pb_task_res(item)])
        )

    async def ping(self, node: Node, node_id: int) -> bool:
        answer = await self.call(node, "Ping", ping_request(node_id))
        return pb.PingResponse.FromString(answer).success


CREATE = pb.CreateNodeRequest(ping_interval=30.0).SerializeToString()


def ping_request(node_id: int) -> pb.PingRequest:
    return pb.PingRequest(node=pb_node(node_id), ping_interval=30.0)


def listing(*nodes: Node) -> dict[bytes, NodeKey]:
    return {node.key.pem: node.key for node in nodes}


def open_gate(*nodes: Node, readmit: bool = True, hold: float = 20.0) -> Gate:
    start = trio.current_time()
    state = MemoryState(clock=lambda: EPOCH + trio.current_time() - start)
    keys = NodeKeys(SERVER, listing(*nodes), source=Path("keys.csv"))
    fleet = fleet_api(state, hold=lambda: hold, readmit=False, message_limit=LIMIT)
    return Gate(authenticated(fleet, state, keys, readmit=readmit), state, keys)


async def denied(call: Any) -> None:
    with pytest.raises(Refused) as refused:
        await call
    assert (refused.value.status, refused.value.message) == (
        Status.UNAUTHENTICATED,
        "Access denied",
    )


ALICE, BOB, EVE = Node(), Node(), Node()


async def test_a_node_joins_works_and_leaves() -> None:
    gate = open_gate(ALICE)
    node_id = await gate.join(ALICE)
    assert await gate.ping(ALICE, node_id)
    run_id = await gate.state.create_run(Run(fab_id="app"))
    task = task_ins(run_id, node_id)
    await gate.state.store_task_ins([task])
    pulled = pb.PullTaskInsResponse.FromString(
        await gate.call(ALICE, "PullTaskIns", pb.PullTaskInsRequest(node=pb_node(node_id)))
    )
    run = await gate.call(ALICE, "GetRun", pb.GetRunRequest(run_id=run_id))
    assert pb.GetRunResponse.FromString(run).run.fab_id == "app"
    answer = pb_task_res(pulled.task_ins_list[0], recordset=b"")
    pushed = await gate.call(ALICE, "PushTaskRes", pb.PushTaskResRequest(task_res_list=[answer]))
    assert list(pb.PushTaskResResponse.FromString(pushed).results.values()) == [0]
    [stored] = await gate.state.take_task_res([task.task_id], LIMIT)
    assert stored.producer == node_id
    leave = pb.DeleteNodeRequest(node=pb_node(node_id))
    assert await gate.call(ALICE, "DeleteNode", leave) == b""
    assert await gate.call(ALICE, "DeleteNode", leave) == b"", "its first answer may be lost"
    await denied(gate.ping(ALICE, node_id))
    assert gate.keys.refused == 1


async def test_the_server_names_its_key_on_creation_only() -> None:
    gate = open_gate(ALICE)
    caller = Caller("", ALICE.named)
    await gate.api.unary["CreateNode"](CREATE, caller)
    assert caller.headers == {"public-key": SERVER.public.header}
    raw = ping_request(1).SerializeToString()
    caller = Caller("", ALICE.signed(raw))
    with pytest.raises(Refused):
        await gate.api.unary["Ping"](raw, caller)
    assert caller.headers == {}


async def test_a_key_has_one_node() -> None:
    gate = open_gate(ALICE, BOB)
    first = await gate.join(ALICE)
    assert await gate.join(BOB) != first
    assert await gate.join(ALICE) == first


async def test_a_key_that_joins_again_is_online_again(mock_clock: MockClock) -> None:
    gate = open_gate(ALICE)
    run_id = await gate.state.create_run(Run())
    node_id = await gate.join(ALICE)
    mock_clock.jump(31)
    assert list(await gate.state.online_nodes(run_id)) == []
    await gate.join(ALICE)
    assert list(await gate.state.online_nodes(run_id)) == [node_id]


async def test_an_app_bundle_needs_a_listed_key_and_no_token() -> None:
    gate = open_gate(ALICE)
    content = b"app"
    fab = Fab(hash=hashlib.sha256(content).hexdigest(), content=content)
    await gate.state.create_run(Run(fab_hash=fab.hash), fab)
    raw = pb.GetFabRequest(hash_str=fab.hash).SerializeToString()
    answer = await gate.raw("GetFab", raw, ALICE.named)
    assert pb.GetFabResponse.FromString(answer).fab.content == content
    await denied(gate.raw("GetFab", raw, EVE.named))
    await denied(gate.raw("GetFab", raw, {}))


Attack = Callable[[Gate, int, int], Any]


def _request(name: str, node_id: int) -> Message:
    node = pb_node(node_id)
    if name == "PushTaskRes":
        return pb.PushTaskResRequest(task_res_list=[pb.TaskRes(task=pb.Task(producer=node))])
    if name == "GetRun":
        return pb.GetRunRequest(run_id=1)
    requests = {
        "Ping": pb.PingRequest(node=node),
        "PullTaskIns": pb.PullTaskInsRequest(node=node),
        "DeleteNode": pb.DeleteNodeRequest(node=node),
    }
    return requests[name]


SIGNED = ["Ping", "PullTaskIns", "PushTaskRes", "DeleteNode", "GetRun"]


@pytest.mark.parametrize("name", SIGNED)
async def test_every_call_is_guarded(name: str) -> None:
    gate = open_gate(ALICE, BOB, hold=0)
    alice, bob = await gate.join(ALICE), await gate.join(BOB)
    raw = _request(name, alice).SerializeToString()
    await denied(gate.raw(name, raw, {}))
    await denied(gate.raw(name, raw, ALICE.named))
    await denied(gate.raw(name, raw, EVE.signed(raw)))
    # What Alice sent, under another key that is listed; and her key with another's signature.
    await denied(gate.raw(name, raw, {**BOB.named, "auth-token": ALICE.token(raw)}))
    await denied(gate.raw(name, raw, {**ALICE.named, "auth-token": BOB.token(raw)}))
    await denied(gate.raw(name, raw, {**ALICE.named, "auth-token": ALICE.token(raw + b"x")}))
    if name != "GetRun":
        await denied(gate.call(BOB, name, _request(name, alice)))
    run_id = await gate.state.create_run(Run())
    assert set(await gate.state.online_nodes(run_id)) == {alice, bob}
    await gate.raw(name, raw, ALICE.signed(raw))


async def test_large_junk_under_one_key_does_not_keep_another_waiting_for_all_of_it() -> None:
    gate = open_gate(ALICE, BOB)
    # What takes much longer to take apart than to sign.
    junk = pb.PushTaskResRequest(task_res_list=[pb.TaskRes()]).SerializeToString() * LARGE
    ended: list[Node] = []

    async def push(node: Node) -> None:
        await denied(gate.raw("PushTaskRes", junk, node.signed(b"another")))
        ended.append(node)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(push, ALICE)
        while not ended:
            await trio.lowlevel.checkpoint()
        nursery.start_soon(push, BOB)
    assert ended.index(BOB) < 10


async def test_every_item_of_a_push_must_be_the_callers() -> None:
    gate = open_gate(ALICE, BOB)
    alice, bob = await gate.join(ALICE), await gate.join(BOB)
    items = [pb.TaskRes(task=pb.Task(producer=pb_node(node_id))) for node_id in (alice, bob)]
    await denied(gate.call(ALICE, "PushTaskRes", pb.PushTaskResRequest(task_res_list=items)))
    nobody = pb.PushTaskResRequest(task_res_list=[items[0], pb.TaskRes()])
    await denied(gate.call(ALICE, "PushTaskRes", nobody))


async def test_the_caller_of_get_run_must_be_a_node() -> None:
    gate = open_gate(ALICE)
    await denied(gate.call(ALICE, "GetRun", pb.GetRunRequest(run_id=1)))


async def test_signed_junk_is_malformed() -> None:
    gate = open_gate(ALICE)
    await gate.join(ALICE)
    with pytest.raises(Refused) as refused:
        await gate.raw("PushTaskRes", b"\xff", ALICE.signed(b"\xff"))
    assert refused.value.status is Status.INVALID_ARGUMENT


# The bytes on the wire


@st.composite
def record_sets(draw: st.DrawFn) -> whole.RecordSet:
    names = st.text(max_size=4)
    metrics = st.builds(
        lambda value: whole.MetricsRecordValue(sint64_value=value), st.integers(-9, 9)
    )
    configs = st.builds(lambda value: whole.ConfigsRecordValue(string_value=value), names)
    record_set = whole.RecordSet()
    for name in draw(st.sets(names, max_size=3)):
        array = whole.Array(dtype="float32", shape=[2], data=b"weights")
        record_set.parameters[name].data_keys.append(name)
        record_set.parameters[name].data_values.append(array)
    for name in draw(st.sets(names, max_size=3)):
        for key, metric in draw(st.dictionaries(names, metrics, max_size=3)).items():
            record_set.metrics[name].data[key].CopyFrom(metric)
        record_set.metrics[name].SetInParent()
    for name in draw(st.sets(names, max_size=3)):
        for key, config in draw(st.dictionaries(names, configs, max_size=3)).items():
            record_set.configs[name].data[key].CopyFrom(config)
        record_set.configs[name].SetInParent()
    return record_set


@given(record_sets(), st.randoms(use_true_random=False))
@settings(max_examples=at_most(50), deadline=None)
def test_a_token_is_good_in_whatever_order_the_maps_travel(
    record_set: whole.RecordSet, random: Any
) -> None:
    async def main() -> None:
        gate = open_gate(ALICE)
        producer = pb_node(await gate.join(ALICE))
        task = whole.WholePushTaskResRequest.Task(producer=producer, recordset=record_set)
        item = whole.WholePushTaskResRequest.TaskRes(task=task)
        request = whole.WholePushTaskResRequest(task_res_list=[item])
        signed = request.SerializeToString(deterministic=True)
        # A serialised map is a list of entries: as many messages joined have the same meaning.
        parts = list(_one_entry_each(record_set))
        random.shuffle(parts)
        shuffled = pb.Task(producer=producer, recordset=b"".join(parts))
        sent = pb.PushTaskResRequest(task_res_list=[pb.TaskRes(task=shuffled)]).SerializeToString()
        await gate.raw("PushTaskRes", sent, ALICE.signed(signed))
        await denied(gate.raw("PushTaskRes", sent, ALICE.signed(signed + b"\x0a\x00")))

    trio.run(main)


def _one_entry_each(record_set: whole.RecordSet) -> Any:
    for name, parameters in record_set.parameters.items():
        yield whole.RecordSet(parameters={name: parameters}).SerializeToString()
    for name, metrics in record_set.metrics.items():
        yield whole.RecordSet(metrics={name: metrics}).SerializeToString()
    for name, configs in record_set.configs.items():
        yield whole.RecordSet(configs={name: configs}).SerializeToString()


# Nodes of before a restart


async def test_a_key_without_a_node_is_given_the_one_it_had() -> None:
    gate = open_gate(ALICE)
    run_id = await gate.state.create_run(Run())
    assert await gate.ping(ALICE, -7)
    assert list(await gate.state.online_nodes(run_id)) == [-7]
    assert await gate.join(ALICE) == -7
    await denied(gate.ping(ALICE, 8))


@pytest.mark.parametrize("name", ["Ping", "PullTaskIns", "PushTaskRes"])
async def test_any_sign_of_life_binds(name: str) -> None:
    gate = open_gate(ALICE, BOB, hold=0)
    await gate.call(ALICE, name, _request(name, 7))
    assert await gate.state.node_of_key(ALICE.key.pem) == 7
    await denied(gate.call(BOB, name, _request(name, 7)))


async def test_saying_goodbye_to_a_superlink_that_does_not_know_one_is_fine() -> None:
    gate = open_gate(ALICE, BOB)
    assert await gate.call(ALICE, "DeleteNode", _request("DeleteNode", 7)) == b""
    bob = await gate.join(BOB)
    await denied(gate.call(ALICE, "DeleteNode", _request("DeleteNode", bob)))
    assert await gate.ping(BOB, bob)


async def test_nothing_is_bound_by_a_wrong_token_nor_without_readmission() -> None:
    gate = open_gate(ALICE)
    raw = ping_request(7).SerializeToString()
    await denied(gate.raw("Ping", raw, {**ALICE.named, "auth-token": EVE.token(raw)}))
    assert await gate.state.node_of_key(ALICE.key.pem) is None
    strict = open_gate(ALICE, readmit=False)
    await denied(strict.ping(ALICE, 7))


async def test_nobody_is_given_the_anonymous_node() -> None:
    gate = open_gate(ALICE)
    await denied(gate.ping(ALICE, 0))
    await gate.join(ALICE)
    await denied(gate.ping(ALICE, 0))


# Keys


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP521R1(), ec.SECP256K1()])
async def test_another_curve_is_refused_even_if_listed(
    curve: ec.EllipticCurve, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(ec.generate_private_key(curve))
    gate = open_gate(node, ALICE)
    assert f"is on {curve.name} and will be refused" in caplog.text
    await denied(gate.raw("CreateNode", CREATE, node.named))
    raw = ping_request(1).SerializeToString()
    await denied(gate.raw("Ping", raw, {**node.named, "auth-token": ALICE.token(raw)}))


async def test_a_listed_key_may_be_written_differently() -> None:
    gate = open_gate(ALICE)
    pem = ALICE.key.pem.replace(b"\n", b"\r\n")
    node_id = await gate.join(ALICE)
    named = {"public-key": base64.urlsafe_b64encode(pem).decode()}
    answer = await gate.raw("CreateNode", CREATE, named)
    assert pb.CreateNodeResponse.FromString(answer).node.node_id == node_id


texts = (
    st.text(max_size=60)
    | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode())
    | st.just(SERVER.public.header)
    | st.just(header(ed25519.Ed25519PrivateKey.generate().public_key()))
    | st.just(header(ec.generate_private_key(ec.BrainpoolP384R1()).public_key()))
    | st.just(base64.urlsafe_b64encode(b"-----BEGIN PUBLIC KEY-----\nAA\n-----END").decode())
)


_PEM = ALICE.key.pem
_HEADER = ALICE.key.header
_curves = st.sampled_from([ec.SECP256R1(), ec.SECP521R1(), ec.SECP256K1(), ec.BrainpoolP384R1()])

keys = (
    texts
    | st.text(alphabet=st.characters(codec="latin-1"), max_size=60)
    | _curves.map(lambda curve: header(ec.generate_private_key(curve).public_key()))
    # Alice's, but for a part of it.
    | st.integers(0, len(_HEADER) - 1).map(lambda length: _HEADER[:length])
    | st.integers(1, 9).map(lambda length: _HEADER + "=" * length)
    | st.builds(
        lambda place, byte: base64.urlsafe_b64encode(
            _PEM[:place] + bytes([byte]) + _PEM[place + 1 :]
        ).decode(),
        st.integers(40, len(_PEM) - 40),
        st.sampled_from(b"\x00!-\xff"),
    )
)
tokens = (
    texts
    | st.text(alphabet=st.characters(codec="latin-1"), max_size=60)
    | st.integers(0, 100).map(lambda size: base64.urlsafe_b64encode(bytes(size)).decode())
    | st.sampled_from(["", "=", "A" * 43, "A" * 43 + "=", "A" * 44, "A" * 43 + "=\n", "ä" * 44])
)


@given(st.sampled_from(["CreateNode", "GetFab", *SIGNED]), keys, tokens, st.binary(max_size=40))
@settings(deadline=None)
def test_rubbish_is_denied_and_changes_nothing(name: str, key: str, token: str, raw: bytes) -> None:
    async def main() -> None:
        gate = open_gate(ALICE)
        run_id = await gate.state.create_run(Run())
        node_id = await gate.join(ALICE)
        task = task_ins(run_id, node_id)
        await gate.state.store_task_ins([task])
        requests = [raw, CREATE if name == "CreateNode" else b""]
        if name in SIGNED:
            requests.append(_request(name, node_id).SerializeToString())
            for request in requests:
                await denied(gate.raw(name, request, {**ALICE.named, "auth-token": token}))
        for request in requests:
            await denied(gate.raw(name, request, {"public-key": key, "auth-token": token}))
        assert list(await gate.state.online_nodes(run_id)) == [node_id]
        assert await gate.state.take_task_ins(node_id, "c") == task
        assert await gate.ping(ALICE, node_id)

    trio.run(main)


@given(st.sampled_from(SIGNED), st.integers(0, 31), st.integers(1, 255))
@settings(max_examples=at_most(30), deadline=None)
def test_a_token_with_one_wrong_byte_is_denied(name: str, place: int, change: int) -> None:
    async def main() -> None:
        gate = open_gate(ALICE)
        raw = _request(name, await gate.join(ALICE)).SerializeToString()
        token = bytearray(base64.urlsafe_b64decode(ALICE.token(raw)))
        token[place] ^= change
        text = base64.urlsafe_b64encode(token).decode()
        await denied(gate.raw(name, raw, {**ALICE.named, "auth-token": text}))

    trio.run(main)


# Holding


async def test_a_node_with_a_key_is_held_after_its_work_only(autojump_clock: MockClock) -> None:
    gate = open_gate(ALICE)
    node_id = await gate.join(ALICE)
    request = pb.PullTaskInsRequest(node=pb_node(node_id))
    held = []
    for work in (False, True, False):
        if work:
            await gate.work(ALICE, node_id)
        before = trio.current_time()
        assert await gate.call(ALICE, "PullTaskIns", request) == b""
        held.append(trio.current_time() - before)
    assert held == pytest.approx([0, AFTER_WORK, 0])


# Revocation


async def test_a_revoked_key_is_out_and_its_held_pull_ends(mock_clock: MockClock) -> None:
    gate = open_gate(ALICE, BOB, hold=1000)
    alice, bob = await gate.join(ALICE), await gate.join(BOB)
    await gate.work(ALICE, alice)
    await gate.work(BOB, bob)
    pulls = {}

    async def pull(node: Node, node_id: int) -> None:
        request = pb.PullTaskInsRequest(node=pb_node(node_id))
        try:
            pulls[node_id] = await gate.call(node, "PullTaskIns", request)
        except Refused as refused:
            pulls[node_id] = refused.message.encode()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pull, ALICE, alice)
        nursery.start_soon(pull, BOB, bob)
        await wait_all_tasks_blocked()
        gate.keys.replace(listing(BOB))
        await wait_all_tasks_blocked()
        assert pulls == {alice: b"Access denied"}
        await denied(gate.ping(ALICE, alice))
        await denied(gate.join(ALICE))
        assert await gate.ping(BOB, bob)
        nursery.cancel_scope.cancel()


async def test_a_task_on_its_way_to_a_revoked_key_goes_back() -> None:
    gate = open_gate(ALICE)
    node_id = await gate.join(ALICE)
    task = task_ins(await gate.state.create_run(Run()), node_id)
    await gate.state.store_task_ins([task])
    raw = pb.PullTaskInsRequest(node=pb_node(node_id)).SerializeToString()

    async def pull() -> None:
        async with gate.api.leased["PullTaskIns"](raw, Caller("", ALICE.signed(raw))):
            gate.keys.replace({})
            await trio.lowlevel.checkpoint()

    await denied(pull())
    assert await gate.state.take_task_ins(node_id, "c") is not None


async def test_a_key_that_is_listed_again_has_its_node_again() -> None:
    gate = open_gate(ALICE)
    node_id = await gate.join(ALICE)
    gate.keys.replace({})
    await denied(gate.ping(ALICE, node_id))
    gate.keys.replace(listing(ALICE))
    assert await gate.ping(ALICE, node_id)


# The log


async def test_refusals_are_told_by_fingerprint_and_not_without_end(
    caplog: pytest.LogCaptureFixture, mock_clock: MockClock, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    gate = open_gate(ALICE)
    raw = ping_request(1).SerializeToString()
    token = EVE.token(raw)
    for _ in range(50):
        await denied(gate.raw("Ping", raw, {**ALICE.named, "auth-token": token}))
        await denied(gate.raw("Ping", raw, {**EVE.named, "auth-token": token}))
    lines = [message for message in caplog.messages if "denied" in message]
    assert len(lines) == 2
    mock_clock.jump(11)
    await denied(gate.raw("Ping", raw, {**ALICE.named, "auth-token": token}))
    lines = [message for message in caplog.messages if "denied" in message]
    assert len(lines) == 3
    assert "and 49 more" in lines[2]
    assert gate.keys.refused == 101
    assert fingerprint(ALICE, tmp_path) in lines[0]
    assert fingerprint(EVE, tmp_path) in lines[1]
    assert token not in caplog.text
    assert "10.0.0.1:1" in lines[0]


def fingerprint(node: Node, folder: Path) -> str:
    file = folder / "key.pub"
    text = node.private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    file.write_bytes(text + b" someone\n")
    told = subprocess.run(["ssh-keygen", "-l", "-f", file], check=True, stdout=subprocess.PIPE)
    return told.stdout.decode().split()[1]


async def test_the_adapter_is_no_way_around() -> None:
    api = refusing_adapter_api("use grpc-rere")
    with pytest.raises(Refused, match="use grpc-rere") as refused:
        async with api.leased["SendReceive"](b"", Caller()):
            pytest.fail("let in")
    assert refused.value.status is Status.UNIMPLEMENTED


async def test_a_key_that_comes_back_is_refused_while_there_is_no_room() -> None:
    gate = open_gate(ALICE, BOB)
    await gate.join(ALICE)
    gate.state.limits = StateLimits(nodes=1)
    with pytest.raises(Refused) as refused:
        await gate.ping(BOB, 4711)
    assert refused.value.status is Status.RESOURCE_EXHAUSTED
    assert gate.keys.refused == 0
