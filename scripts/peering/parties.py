"""The parties of a run of today's Flower, call by call: no program of Flower's is needed.

An operator starts runs, a SuperExec takes one, nodes and the process of a run exchange messages.
Calls raise NotAnswered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import attrs
from google.protobuf.message import Message

from peering.client import NotAnswered, Send, over_http
from peering.parcels import Parcel, bundle
from peering.signing import Signer
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import SERVER_APP
from superlink_trio.wire.objects import ids_of

Response = TypeVar("Response", bound=Message)

Headers = Callable[[], Mapping[str, str]]
"""Make what a call has besides."""

Connect = Callable[[str, Headers], Send]
"""Give what calls one of the APIs: "control", "fleet" or "runtime"."""

_INTERVAL = 30.0  # seconds between two heartbeats, as Flower's own nodes say

_LENGTH = 4  # bytes before each part of an answer that comes in parts, which say how long it is

CONTRADICTS = "412"
"""The status of a request that does not go with what there is: it may have been heard before."""


def at(address: str, *, timeout: float = 30.0) -> Connect:
    """Connect to a SuperLink that speaks no TLS; a call may take so many seconds."""
    return lambda api, headers: over_http(address, f"/v1/{api}", headers, timeout=timeout)


def call(send: Send, name: str, request: Message, response: type[Response]) -> Response:
    """Make one call."""
    return response.FromString(send(name, request.SerializeToString()))


def start_run(connect: Connect) -> int:
    """Start a run of an app that does nothing, as `flwr run` does; give its id."""
    request = pb.StartRunRequest(fab=bundle())
    return call(connect("control", dict), "StartRun", request, pb.StartRunResponse).run_id


def statuses(connect: Connect, most: int = 1000) -> Mapping[int, pb.RunStatus]:
    """Tell how it is with the newest runs, by their ids, as `flwr ls` does."""
    request = pb.ListRunsRequest(limit=most)
    listed = call(connect("control", dict), "ListRuns", request, pb.ListRunsResponse)
    return {run_id: run.status for run_id, run in listed.run_dict.items()}


def known_nodes(connect: Connect) -> Mapping[int, str]:
    """Tell how it is with each node, by its id, as `flwr supernode list` does."""
    request = pb.ListNodesRequest()
    listed = call(connect("control", dict), "ListNodes", request, pb.ListNodesResponse)
    return {node.node_id: node.status for node in listed.nodes_info}


def log_of(connect: Connect, run_id: int) -> str:
    """Follow the log of a run until that is over, as `flwr log` does; give all of it."""
    request = pb.StreamLogsRequest(run_id=run_id)
    rest = connect("control", dict)("StreamLogs", request.SerializeToString())
    text = ""
    while rest:
        end = _LENGTH + int.from_bytes(rest[:_LENGTH], "big")
        text += pb.StreamLogsResponse.FromString(rest[_LENGTH:end]).log_output
        rest = rest[end:]
    return text


@attrs.frozen
class Party:
    """What nodes and the processes of runs have in common: objects that follow one by one."""

    send: Send
    me: pb.Node | None = None
    """Who calls, where a call says so."""

    def push_objects(self, parcel: Parcel, missing: Sequence[str]) -> None:
        """Push the objects of a message that a SuperLink misses."""
        for object_id in missing:
            request = pb.PushObjectRequest(
                node=self.me,
                run_id=parcel.envelope.message.metadata.run_id,
                object_id=object_id,
                object_content=parcel.objects[object_id],
            )
            call(self.send, "PushObject", request, pb.PushObjectResponse)

    def pull_objects(self, run_id: int, tree: pb.ObjectTree) -> Iterator[tuple[str, bytes | None]]:
        """Pull the objects of a message one by one; None for one that is not there."""
        for object_id in ids_of(tree):
            request = pb.PullObjectRequest(node=self.me, run_id=run_id, object_id=object_id)
            found = call(self.send, "PullObject", request, pb.PullObjectResponse)
            yield object_id, found.object_content if found.object_available else None

    def confirm(self, message: pb.Message) -> None:
        """Say that all of a message has arrived."""
        request = pb.ConfirmMessageReceivedRequest(
            node=self.me,
            run_id=message.metadata.run_id,
            message_object_id=message.metadata.message_id,
        )
        response = pb.ConfirmMessageReceivedResponse
        call(self.send, "ConfirmMessageReceived", request, response)


@attrs.frozen
class Node(Party):
    """A SuperNode."""

    @property
    def node_id(self) -> int:
        """Its id."""
        assert self.me is not None
        return self.me.node_id

    def heartbeat(self) -> bool:
        """Say that it is still there; tell whether it is known."""
        request = pb.SendNodeHeartbeatRequest(node=self.me, heartbeat_interval=_INTERVAL)
        return call(self.send, "SendNodeHeartbeat", request, pb.SendNodeHeartbeatResponse).success

    def pull(self) -> tuple[pb.Message, pb.ObjectTree] | None:
        """Wait for an instruction; give it, and which objects it is made of."""
        request = pb.PullMessagesRequest(node=self.me)
        pulled = call(self.send, "PullMessages", request, pb.PullMessagesResponse)
        if not pulled.messages_list:
            return None
        return pulled.messages_list[0], pulled.message_object_trees[0]

    def push(self, reply: Parcel) -> None:
        """Push a reply, with its objects."""
        request = pb.PushMessagesRequest(
            node=self.me,
            messages_list=[reply.envelope.message],
            message_object_trees=[reply.envelope.tree],
        )
        pushed = call(self.send, "PushMessages", request, pb.PushMessagesResponse)
        self.push_objects(reply, pushed.objects_to_push)


def join(connect: Connect, signer: Signer, interval: float = _INTERVAL) -> Node:
    """Register the node of a key if it is not, and say that it is there.

    `interval`: seconds between two heartbeats that it promises.
    """
    send = connect("fleet", lambda: signer.headers(time.time()))
    register = pb.RegisterNodeFleetRequest(public_key=signer.public)
    try:
        call(send, "RegisterNode", register, pb.RegisterNodeFleetResponse)
    except NotAnswered as error:
        if error.code != CONTRADICTS:
            raise
    activate = pb.ActivateNodeRequest(public_key=signer.public, heartbeat_interval=interval)
    node_id = call(send, "ActivateNode", activate, pb.ActivateNodeResponse).node_id
    return Node(send, pb.Node(node_id=node_id))


@attrs.frozen
class Process(Party):
    """The process of a run, as `flwr-serverapp` is one."""

    def begin(self) -> int:
        """Say that it runs; give its run's id."""
        request = pb.PullTaskInputRequest()
        return call(self.send, "PullTaskInput", request, pb.PullTaskInputResponse).run.run_id

    def heartbeat(self) -> bool:
        """Say that it is still there; tell whether its run goes on."""
        request = pb.SendTaskHeartbeatRequest()
        return call(self.send, "SendTaskHeartbeat", request, pb.SendTaskHeartbeatResponse).success

    def nodes(self) -> Sequence[int]:
        """Give the ids of the nodes that are online."""
        nodes = call(self.send, "GetNodes", pb.GetNodesRequest(), pb.GetNodesResponse).nodes
        return [node.node_id for node in nodes]

    def push(self, instructions: Sequence[Parcel]) -> Sequence[str]:
        """Push instructions, with their objects; give their ids, "" for one that is not taken."""
        request = pb.PushAppMessagesRequest(
            messages_list=[one.envelope.message for one in instructions],
            message_object_trees=[one.envelope.tree for one in instructions],
        )
        pushed = call(self.send, "PushMessages", request, pb.PushAppMessagesResponse)
        missing = set(pushed.objects_to_push)
        for one in instructions:
            self.push_objects(one, [object_id for object_id in one.objects if object_id in missing])
            missing -= one.objects.keys()
        return pushed.message_ids

    def pull(self, message_ids: Sequence[str]) -> Sequence[tuple[pb.Message, pb.ObjectTree]]:
        """Wait for the replies to instructions; give those there are, and their objects."""
        request = pb.PullAppMessagesRequest(message_ids=message_ids)
        pulled = call(self.send, "PullMessages", request, pb.PullAppMessagesResponse)
        return list(zip(pulled.messages_list, pulled.message_object_trees, strict=True))

    def log(self, text: str) -> None:
        """Log something."""
        call(self.send, "PushLogs", pb.PushLogsRequest(logs=[text]), pb.PushLogsResponse)

    def finish(self, outcome: str = "completed", details: str = "") -> None:
        """Say how its run has ended."""
        request = pb.PushTaskOutputRequest(sub_status=outcome, details=details)
        call(self.send, "PushTaskOutput", request, pb.PushTaskOutputResponse)


def process_of(connect: Connect, token: str) -> Process:
    """Be the process that has this token."""
    return Process(connect("runtime", lambda: {"flwr-task-token": token}))


def take_run(connect: Connect) -> tuple[int, Process] | None:
    """Take a run, as a SuperExec without a secret does; give its id, and its process."""
    request = pb.AcquireTaskRequest(supported_task_types=[SERVER_APP])
    taken = call(connect("runtime", dict), "AcquireTask", request, pb.AcquireTaskResponse)
    if not taken.token:
        return None
    return taken.task.run_id, process_of(connect, taken.token)
