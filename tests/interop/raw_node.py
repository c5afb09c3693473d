"""A SuperNode of the fewest words, which stops wherever a test wants it to."""

from __future__ import annotations

import time
from typing import TypeVar

import attrs
import trio
from google.protobuf.message import Message
from peering.parcels import Parcel, parcel
from signing import Signer
from transport.http.clients import Fields, Http1, connect, head

from superlink_trio.config.address import Address
from superlink_trio.state.messages import SERVER
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.objects import ids_of

Response = TypeVar("Response", bound=Message)

_INTERVAL = 10.0
_TIMEOUT = 60.0


@attrs.define
class RawNode:
    """A node that makes each call on a connection of its own, and sends no heartbeats."""

    address: str
    signer: Signer = attrs.field(factory=Signer)
    node_id: int = 0

    async def join(self) -> None:
        """Come online, for 20 seconds."""
        key = self.signer.public
        await self._call(
            "register-node",
            pb.RegisterNodeFleetRequest(public_key=key),
            pb.RegisterNodeFleetResponse,
        )
        activate = pb.ActivateNodeRequest(public_key=key, heartbeat_interval=_INTERVAL)
        response = await self._call("activate-node", activate, pb.ActivateNodeResponse)
        self.node_id = response.node_id

    async def pull(self) -> pb.PullMessagesResponse:
        """Wait for an instruction."""
        request = pb.PullMessagesRequest(node=self._node)
        return await self._call("pull-messages", request, pb.PullMessagesResponse)

    async def confirm(self, pulled: pb.PullMessagesResponse) -> None:
        """Pull all objects of an instruction, and confirm it."""
        run_id = pulled.messages_list[0].metadata.run_id
        for object_id in ids_of(pulled.message_object_trees[0]):
            pull = pb.PullObjectRequest(node=self._node, run_id=run_id, object_id=object_id)
            found = await self._call("pull-object", pull, pb.PullObjectResponse)
            assert found.object_available
        request = pb.ConfirmMessageReceivedRequest(
            node=self._node,
            run_id=run_id,
            message_object_id=pulled.messages_list[0].metadata.message_id,
        )
        await self._call("confirm-message-received", request, pb.ConfirmMessageReceivedResponse)

    async def push_half(self, pulled: pb.PullMessagesResponse) -> None:
        """Push a reply, one of its objects, and the half of another."""
        meta = pulled.messages_list[0].metadata
        reply = parcel(
            meta.run_id,
            source=self.node_id,
            to=SERVER,
            reply_to=meta.message_id,
            parts=(b"one", b"two"),
            created_at=time.time(),
        )
        request = pb.PushMessagesRequest(
            node=self._node,
            messages_list=[reply.envelope.message],
            message_object_trees=[reply.envelope.tree],
        )
        pushed = await self._call("push-messages", request, pb.PushMessagesResponse)
        whole, half, *_ = pushed.objects_to_push
        object_ = self._object(meta.run_id, reply, whole)
        assert (await self._call("push-object", object_, pb.PushObjectResponse)).stored
        body = self._object(meta.run_id, reply, half).SerializeToString()
        await self._break_off("push-object", body)

    @property
    def _node(self) -> pb.Node:
        return pb.Node(node_id=self.node_id)

    def _object(self, run_id: int, reply: Parcel, object_id: str) -> pb.PushObjectRequest:
        return pb.PushObjectRequest(
            node=self._node,
            run_id=run_id,
            object_id=object_id,
            object_content=reply.objects[object_id],
        )

    async def _call(self, name: str, request: Message, kind: type[Response]) -> Response:
        with trio.fail_after(_TIMEOUT):
            async with await self._connect() as stream:
                answer = await Http1(stream).post(
                    f"/v1/fleet/{name}", request.SerializeToString(), self._headers
                )
        assert answer.status == 200, answer.body
        return kind.FromString(answer.body)

    async def _break_off(self, name: str, body: bytes) -> None:
        async with await self._connect() as stream:
            start = head("POST", f"/v1/fleet/{name}", len(body), self._headers)
            await stream.send_all(start + body[: len(body) // 2])

    async def _connect(self) -> trio.SocketStream:
        return await connect(Address.parse(self.address))

    @property
    def _headers(self) -> Fields:
        return self.signer.headers(time.time()).items()
