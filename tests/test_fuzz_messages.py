"""Rubbish on every call of Flower 1.35 and later, over real HTTP.

Whatever comes in, the answer is OK or a refusal that says why, never the server's own failure, and
afterwards an honest node and its run are served and nothing that was pushed is lost.
"""

from __future__ import annotations

import http.client
import io
import itertools
import json
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message
from hypothesis import example, given
from hypothesis import strategies as st
from peering.parcels import Parcel, bundle, parcel
from rubbish import DATABASES, STORES, Beside, floats, fuzz, texts
from signing import Signer

from superlink_trio.state.messages import SERVER
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.objects import MOST_OBJECTS, ids_of

CALLS: dict[str, type[Message]] = {
    "fleet/register-node": pb.RegisterNodeFleetResponse,
    "fleet/activate-node": pb.ActivateNodeResponse,
    "fleet/deactivate-node": pb.DeactivateNodeResponse,
    "fleet/unregister-node": pb.UnregisterNodeFleetResponse,
    "fleet/send-node-heartbeat": pb.SendNodeHeartbeatResponse,
    "fleet/pull-messages": pb.PullMessagesResponse,
    "fleet/push-messages": pb.PushMessagesResponse,
    "fleet/get-run": pb.GetRunResponse,
    "fleet/get-fab": pb.GetFabResponse,
    "fleet/push-object": pb.PushObjectResponse,
    "fleet/pull-object": pb.PullObjectResponse,
    "fleet/confirm-message-received": pb.ConfirmMessageReceivedResponse,
    "runtime/pull-task-input": pb.PullTaskInputResponse,
    "runtime/send-task-heartbeat": pb.SendTaskHeartbeatResponse,
    "runtime/get-nodes": pb.GetNodesResponse,
    "runtime/push-messages": pb.PushAppMessagesResponse,
    "runtime/pull-messages": pb.PullAppMessagesResponse,
    "runtime/push-object": pb.PushObjectResponse,
    "runtime/pull-object": pb.PullObjectResponse,
    "runtime/confirm-message-received": pb.ConfirmMessageReceivedResponse,
    "runtime/push-logs": pb.PushLogsResponse,
    "control/start-run": pb.StartRunResponse,
    "control/stop-run": pb.StopRunResponse,
    "control/list-runs": pb.ListRunsResponse,
    "control/stream-logs": pb.StreamLogsResponse,
    "control/register-node": pb.RegisterNodeResponse,
    "control/unregister-node": pb.UnregisterNodeResponse,
    "control/list-nodes": pb.ListNodesResponse,
    "control/list-federations": pb.ListFederationsResponse,
    "control/show-federation": pb.ShowFederationResponse,
    "control/get-login-details": pb.GetLoginDetailsResponse,
}
HONEST = {200, 400, 401, 403, 404, 412}

Response = TypeVar("Response", bound=Message)


class Final(http.client.HTTPResponse):
    """What follows 102, which says that a call takes its time: http.client skips 100 alone."""

    def begin(self) -> None:
        super().begin()
        while self.status == http.HTTPStatus.PROCESSING:
            self.headers = None  # type: ignore[assignment]  # there are none of this response yet
            super().begin()


class Server:
    """A SuperLink, and beside the rubbish a node, and a run that has a process."""

    def __init__(self, huge: int, database: str, token: Path) -> None:
        self.huge = huge
        self._beside = Beside(port=0, database=database)
        address = self._beside.link.flower_address
        assert address is not None
        self._connection = http.client.HTTPConnection(address.host, address.port, timeout=60)
        self._connection.response_class = Final
        self.signer = Signer()
        self._numbers = itertools.count()
        self._set_up_bystanders(token)

    def close(self) -> None:
        self._connection.close()
        self._beside.close()

    def raw(
        self, name: str, body: bytes, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Make a call in the node's and in the run's name, unless other headers are given."""
        if headers is None:
            headers = self.signer.headers(time.time()) | {"flwr-task-token": self.run_token}
        self._connection.request("POST", f"/v1/{name}", body, headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def call(self, name: str, request: Message, kind: type[Response]) -> Response:
        status, answer = self.raw(name, request.SerializeToString())
        assert status == 200, answer
        return kind.FromString(answer)

    def _set_up_bystanders(self, token: Path) -> None:
        """Push an instruction that waits all the time, as its node asks only when it is checked."""
        self.run_token = ""
        key = self.signer.public
        register = pb.RegisterNodeFleetRequest(public_key=key)
        self.node_id = self.call(
            "fleet/register-node", register, pb.RegisterNodeFleetResponse
        ).node_id
        activate = pb.ActivateNodeRequest(public_key=key, heartbeat_interval=1800)
        self.call("fleet/activate-node", activate, pb.ActivateNodeResponse)
        self.node = pb.Node(node_id=self.node_id)
        start = pb.StartRunRequest(fab=bundle())
        self.run_id = self.call("control/start-run", start, pb.StartRunResponse).run_id
        while not token.exists():
            time.sleep(0.01)
        self.run_token = token.read_text()
        self.call("runtime/pull-task-input", pb.PullTaskInputRequest(), pb.PullTaskInputResponse)
        self.waiting = self._instruct()

    def _instruct(self) -> Parcel:
        asked = self.parcel(to=self.node_id)
        request = pb.PushAppMessagesRequest(
            messages_list=[asked.envelope.message], message_object_trees=[asked.envelope.tree]
        )
        pushed = self.call("runtime/push-messages", request, pb.PushAppMessagesResponse)
        assert pushed.message_ids == [asked.message_id]
        for object_id in pushed.objects_to_push:
            push = pb.PushObjectRequest(
                object_id=object_id, object_content=asked.objects[object_id]
            )
            assert self.call("runtime/push-object", push, pb.PushObjectResponse).stored
        return asked

    def parcel(self, **details: Any) -> Parcel:
        part = b"%d" % next(self._numbers)
        return parcel(self.run_id, parts=(part,), created_at=time.time(), **details)

    def reply(self) -> Parcel:
        """Make the reply to the instruction that waits."""
        return self.parcel(source=self.node_id, to=SERVER, reply_to=self.waiting.message_id)

    def keep_alive(self) -> None:
        """Send the heartbeat of the run's process."""
        heartbeat = pb.SendTaskHeartbeatRequest()
        beat = self.call("runtime/send-task-heartbeat", heartbeat, pb.SendTaskHeartbeatResponse)
        assert beat.success

    def check(self) -> None:
        """The instruction is still there, and goes round; another one takes its place."""
        pull = pb.PullMessagesRequest(node=self.node)
        pulled = self.call("fleet/pull-messages", pull, pb.PullMessagesResponse)
        assert pulled.message_object_trees[0].object_id == self.waiting.message_id
        for object_id, content in self.waiting.objects.items():
            get = pb.PullObjectRequest(node=self.node, run_id=self.run_id, object_id=object_id)
            found = self.call("fleet/pull-object", get, pb.PullObjectResponse)
            assert found.object_content == content
        confirm = pb.ConfirmMessageReceivedRequest(
            node=self.node, run_id=self.run_id, message_object_id=self.waiting.message_id
        )
        self.call("fleet/confirm-message-received", confirm, pb.ConfirmMessageReceivedResponse)
        reply = self.reply()
        push = pb.PushMessagesRequest(
            node=self.node,
            messages_list=[reply.envelope.message],
            message_object_trees=[reply.envelope.tree],
        )
        pushed = self.call("fleet/push-messages", push, pb.PushMessagesResponse)
        for object_id in pushed.objects_to_push:
            put = pb.PushObjectRequest(
                node=self.node,
                run_id=self.run_id,
                object_id=object_id,
                object_content=reply.objects[object_id],
            )
            assert self.call("fleet/push-object", put, pb.PushObjectResponse).stored
        collect = pb.PullAppMessagesRequest(message_ids=[self.waiting.message_id])
        replies = self.call("runtime/pull-messages", collect, pb.PullAppMessagesResponse)
        assert [tree.object_id for tree in replies.message_object_trees] == [reply.message_id]
        self.waiting = self._instruct()


@pytest.fixture(scope="module", params=STORES)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    kind = DATABASES[request.param]
    database = kind.make()  # as long as PATH is the usual one
    folder = tmp_path_factory.mktemp("programs")
    token = folder / "token"
    program = folder / "flwr-serverapp"
    program.write_text(
        f"""#!{sys.executable}
import pathlib, sys, time
given = pathlib.Path(sys.argv[sys.argv.index("--token-file") + 1]).read_text()
token = pathlib.Path({str(token)!r})
if not token.exists():
    token.with_name("partial").write_text(given)
    token.with_name("partial").rename(token)
    time.sleep(3600)
"""
    )
    program.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder))
        server = Server(kind.huge, database, token)
        yield server
        server.check()
        server.close()


def expect_honest(
    server: Server, name: str, body: bytes, headers: dict[str, str] | None = None
) -> int:
    status, answer = server.raw(name, body, headers)
    assert status in HONEST, f"{name}: {status} {answer!r}"
    if status != 200:
        assert json.loads(answer)["detail"]
    elif name != "control/stream-logs":
        CALLS[name].FromString(answer)
    server.keep_alive()
    return status


names = st.sampled_from(sorted(CALLS))
ids = st.sampled_from([0, 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
headers = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80).map(str.strip)
trees = st.recursive(
    st.builds(pb.ObjectTree, object_id=texts),
    lambda children: st.builds(
        pb.ObjectTree, object_id=texts, children=st.lists(children, max_size=3)
    ),
)
broken_fields: dict[str, st.SearchStrategy[Any]] = {
    "run_id": ids,
    "message_id": texts,
    "src_node_id": ids,
    "dst_node_id": ids,
    "reply_to_message_id": texts,
    "group_id": texts,
    "ttl": floats,
    "message_type": texts,
    "created_at": floats,
}


@fuzz
@given(names, st.binary(max_size=300))
@example("fleet/pull-messages", b"")
@example("runtime/push-messages", b"\x0a\x00")
def test_random_bytes(server: Server, name: str, body: bytes) -> None:
    expect_honest(server, name, body)


@fuzz
@given(names.filter(lambda name: not name.startswith("control/")), st.data())
def test_one_broken_header(server: Server, name: str, data: st.DataObject) -> None:
    good = server.signer.headers(time.time()) | {"flwr-task-token": server.run_token}
    kind = data.draw(st.sampled_from(sorted(good)))
    value = data.draw(headers | st.datetimes(timezones=st.timezones() | st.none()).map(str))
    expect_honest(server, name, b"", good | {kind: value})


@fuzz
@given(st.data())
def test_one_broken_field(server: Server, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(broken_fields)))
    value = data.draw(broken_fields[field])
    for name, kind, sent in (
        ("runtime/push-messages", pb.PushAppMessagesRequest, server.parcel(to=server.node_id + 1)),
        ("fleet/push-messages", pb.PushMessagesRequest, server.reply()),
    ):
        setattr(sent.envelope.message.metadata, field, value)
        request = kind(
            messages_list=[sent.envelope.message], message_object_trees=[sent.envelope.tree]
        )
        if isinstance(request, pb.PushMessagesRequest):
            request.node.CopyFrom(server.node)
        expect_honest(server, name, request.SerializeToString())


@fuzz
@given(tree=trees, root=st.booleans())
def test_wrong_trees(server: Server, tree: pb.ObjectTree, root: bool) -> None:
    asked = server.parcel(to=server.node_id)
    if root:
        asked.envelope.tree.children.append(tree)
    else:
        asked.envelope.tree.CopyFrom(tree)
    request = pb.PushAppMessagesRequest(
        messages_list=[asked.envelope.message], message_object_trees=[asked.envelope.tree]
    )
    expect_honest(server, "runtime/push-messages", request.SerializeToString())


@fuzz
@given(object_id=texts, content=st.binary(max_size=100), run_id=ids)
def test_wrong_objects(server: Server, object_id: str, content: bytes, run_id: int) -> None:
    for part, run in itertools.product(("fleet", "runtime"), (run_id, server.run_id)):
        push = pb.PushObjectRequest(
            node=server.node, run_id=run, object_id=object_id, object_content=content
        )
        expect_honest(server, f"{part}/push-object", push.SerializeToString())
        pull = pb.PullObjectRequest(node=server.node, run_id=run, object_id=object_id)
        expect_honest(server, f"{part}/pull-object", pull.SerializeToString())
        confirm = pb.ConfirmMessageReceivedRequest(
            node=server.node, run_id=run, message_object_id=object_id
        )
        expect_honest(server, f"{part}/confirm-message-received", confirm.SerializeToString())
    collect = pb.PullAppMessagesRequest(message_ids=[object_id])
    expect_honest(server, "runtime/pull-messages", collect.SerializeToString())


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


# Made when they are wanted: a bomb takes a second, and each worker would make one.
_NO_BUNDLES: Mapping[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no zip": lambda: b"no zip",
    "a bomb": lambda: zipped("pyproject.toml", b"\0" * 2**28),
    "a path out of it": lambda: zipped("../pyproject.toml", b""),
    "a path from the root": lambda: zipped("/pyproject.toml", b""),
    "nested without end": lambda: zipped("pyproject.toml", b"a = [" * 100_000),
    "no name": lambda: zipped("pyproject.toml", b"[tool.flwr.app.components]\n"),
    "cut off": lambda: bundle().content[:-30],
    "too large": lambda: b"\0" * (11 * 1024 * 1024),
}


@pytest.mark.parametrize("content", _NO_BUNDLES)
def test_bundles_that_are_none(server: Server, content: str) -> None:
    request = pb.StartRunRequest(fab=pb.Fab(content=_NO_BUNDLES[content]()))
    assert expect_honest(server, "control/start-run", request.SerializeToString()) == 412


@fuzz
@given(st.binary(max_size=300), st.integers(0, 400))
def test_a_damaged_bundle(server: Server, damage: bytes, at: int) -> None:
    content = bundle().content
    damaged = content[:at] + damage + content[at + len(damage) :]
    request = pb.StartRunRequest(fab=pb.Fab(content=damaged))
    expect_honest(server, "control/start-run", request.SerializeToString())


@pytest.mark.parametrize("status", [200, 400])
def test_huge_trees(server: Server, status: int) -> None:
    asked = server.parcel(to=server.node_id)
    request = pb.PushAppMessagesRequest(
        messages_list=[asked.envelope.message], message_object_trees=[asked.envelope.tree]
    )
    [tree] = request.message_object_trees
    objects = MOST_OBJECTS + 1 if status == 400 else min(5 * server.huge, MOST_OBJECTS)
    others = range(objects - len(ids_of(tree)))
    tree.children.extend(pb.ObjectTree(object_id=f"{number:064x}") for number in others)
    assert expect_honest(server, "runtime/push-messages", request.SerializeToString()) == status


def test_huge_lists(server: Server) -> None:
    collect = pb.PullAppMessagesRequest(message_ids=[f"{n:064x}" for n in range(server.huge)])
    assert expect_honest(server, "runtime/pull-messages", collect.SerializeToString()) == 200
    logs = pb.PushLogsRequest(run_id=server.run_id, logs=["x" * 100] * 50_000)
    assert expect_honest(server, "runtime/push-logs", logs.SerializeToString()) == 200


def test_every_strange_input_left_the_bystanders_alone(server: Server) -> None:
    server.check()
    server.check()
