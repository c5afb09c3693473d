"""A run of today's Flower with two nodes, played call by call: no program of Flower's is needed."""

from __future__ import annotations

import http.client
import os
import select
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import attrs
from control.test_api import bundle
from google.protobuf.message import Message
from signing import Signer
from state.messages.parcels import Parcel, parcel

from superlink_trio import SuperLink
from superlink_trio.state.messages import SERVER
from superlink_trio.wire import messages_pb2 as pb

Response = TypeVar("Response", bound=Message)

_PATIENCE = 20.0  # seconds

REASON = "Traceback (most recent call last):\nValueError: no <b>such</b> model"


def place_app(folder: Path) -> Path:
    """Put a `flwr-serverapp` into a folder that does nothing but tell its token to who reads it."""
    told = folder / "token"
    os.mkfifo(told)
    program = folder / "flwr-serverapp"
    program.write_text(
        f"#!{sys.executable}\n"
        "import signal, sys\n"
        "token = open(sys.argv[sys.argv.index('--token-file') + 1]).read()\n"
        f"open({str(told)!r}, 'w').write(token)\n"
        "signal.pause()\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return told


@attrs.frozen
class Node:
    """A SuperNode."""

    address: str
    signer: Signer = attrs.field(factory=Signer)

    def call(self, path: str, request: Message, response: type[Response]) -> Response:
        headers = self.signer.headers(time.time())
        return post(self.address, f"fleet/{path}", request, response, headers)

    def start(self) -> int:
        """Register it, and say that it is there; give its id."""
        key = self.signer.public
        register = pb.RegisterNodeFleetRequest(public_key=key)
        self.call("register-node", register, pb.RegisterNodeFleetResponse)
        activate = pb.ActivateNodeRequest(public_key=key, heartbeat_interval=30.0)
        return self.call("activate-node", activate, pb.ActivateNodeResponse).node_id


def a_message_round(link: SuperLink, told: Path, kind: str = "train") -> Iterator[int]:
    """Play a run; go on when one of two nodes works, when it has answered, and when all failed.

    Gives the run's id. `told`: see `place_app`.
    """
    address = str(link.flower_address)
    start = pb.StartRunRequest(fab=bundle())
    run_id = post(address, "control/start-run", start, pb.StartRunResponse).run_id
    token = {"flwr-task-token": read_token(told)}
    begin = pb.PullTaskInputRequest()
    post(address, "runtime/pull-task-input", begin, pb.PullTaskInputResponse, token)
    node, idle = Node(address), Node(address)
    node_id = node.start()
    parcels = [
        parcel(run_id, to=to, created_at=time.time(), message_type=kind, group_id="2")
        for to in (node_id, idle.start())
    ]
    pushed = pb.PushAppMessagesRequest(
        messages_list=[one.envelope.message for one in parcels],
        message_object_trees=[one.envelope.tree for one in parcels],
    )
    post(address, "runtime/push-messages", pushed, pb.PushAppMessagesResponse, token)
    for object_id, content in objects_of(*parcels):
        request = pb.PushObjectRequest(run_id=run_id, object_id=object_id, object_content=content)
        post(address, "runtime/push-object", request, pb.PushObjectResponse, token)
    me = pb.Node(node_id=node_id)
    [asked] = node.call(
        "pull-messages", pb.PullMessagesRequest(node=me), pb.PullMessagesResponse
    ).messages_list
    yield run_id
    reply_to = asked.metadata.message_id
    reply = parcel(run_id, source=node_id, to=SERVER, reply_to=reply_to, parts=(b"reply",))
    push = pb.PushMessagesRequest(
        node=me,
        messages_list=[reply.envelope.message],
        message_object_trees=[reply.envelope.tree],
    )
    node.call("push-messages", push, pb.PushMessagesResponse)
    for object_id, content in objects_of(reply):
        request = pb.PushObjectRequest(
            node=me, run_id=run_id, object_id=object_id, object_content=content
        )
        node.call("push-object", request, pb.PushObjectResponse)
    pull = pb.PullAppMessagesRequest(message_ids=[one.message_id for one in parcels])
    post(address, "runtime/pull-messages", pull, pb.PullAppMessagesResponse, token)
    yield run_id
    output = pb.PushTaskOutputRequest(sub_status="failed", details=REASON)
    post(address, "runtime/push-task-output", output, pb.PushTaskOutputResponse, token)
    yield run_id


def objects_of(*parcels: Parcel) -> Iterator[tuple[str, bytes]]:
    return iter({id: content for one in parcels for id, content in one.objects.items()}.items())


def read_token(told: Path) -> str:
    """Wait for a token of `place_app`."""
    pipe = os.open(told, os.O_RDONLY | os.O_NONBLOCK)
    try:
        readable, _, _ = select.select([pipe], [], [], _PATIENCE)
        assert readable, "the program was not started"
        return os.read(pipe, 1000).decode()
    finally:
        os.close(pipe)


def post(
    address: str,
    path: str,
    request: Message,
    response: type[Response],
    headers: dict[str, str] | None = None,
) -> Response:
    connection = http.client.HTTPConnection(address, timeout=_PATIENCE)
    try:
        connection.request("POST", f"/v1/{path}", request.SerializeToString(), headers or {})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    assert answer.status == 200, (path, answer.status, body)
    return response.FromString(body)
