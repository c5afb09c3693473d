"""A SuperNode of the fewest words, which stops wherever a test wants it to."""

from __future__ import annotations

import time

import attrs
import trio
from peering.parcels import Parcel, parcel
from peering.parties import Node, at, call, join
from peering.signing import Signer
from transport.http.clients import connect, head

from superlink_trio.config.address import Address
from superlink_trio.state.messages import SERVER
from superlink_trio.wire import messages_pb2 as pb

_INTERVAL = 10.0
_TIMEOUT = 60.0


@attrs.frozen
class RawNode:
    """A node that sends no heartbeats."""

    address: str
    node: Node
    signer: Signer

    async def pull(self) -> tuple[pb.Message, pb.ObjectTree]:
        """Wait for an instruction."""
        pulled = await trio.to_thread.run_sync(self.node.pull)
        assert pulled is not None
        return pulled

    async def confirm(self, message: pb.Message, tree: pb.ObjectTree) -> None:
        """Pull all objects of an instruction, and confirm it."""
        await trio.to_thread.run_sync(self._confirm, message, tree)

    def _confirm(self, message: pb.Message, tree: pb.ObjectTree) -> None:
        for _, content in self.node.pull_objects(message.metadata.run_id, tree):
            assert content is not None
        self.node.confirm(message)

    async def push_half(self, message: pb.Message) -> None:
        """Push a reply, one of its objects, and the half of another."""
        reply = parcel(
            message.metadata.run_id,
            source=self.node.node_id,
            to=SERVER,
            reply_to=message.metadata.message_id,
            parts=(b"one", b"two"),
            created_at=time.time(),
        )
        half = await trio.to_thread.run_sync(self._begin_to_push, reply)
        request = pb.PushObjectRequest(
            node=self.node.me,
            run_id=message.metadata.run_id,
            object_id=half,
            object_content=reply.objects[half],
        )
        await self._break_off("push-object", request.SerializeToString())

    def _begin_to_push(self, reply: Parcel) -> str:
        """Push a reply and the first of its objects; give the id of the next."""
        request = pb.PushMessagesRequest(
            node=self.node.me,
            messages_list=[reply.envelope.message],
            message_object_trees=[reply.envelope.tree],
        )
        pushed = call(self.node.send, "PushMessages", request, pb.PushMessagesResponse)
        whole, half, *_ = pushed.objects_to_push
        self.node.push_objects(reply, [whole])
        return half

    async def _break_off(self, name: str, body: bytes) -> None:
        async with await connect(Address.parse(self.address)) as stream:
            headers = self.signer.headers(time.time()).items()
            start = head("POST", f"/v1/fleet/{name}", len(body), headers)
            await stream.send_all(start + body[: len(body) // 2])


async def join_raw(address: str) -> RawNode:
    """Let a node come online, for 20 seconds."""
    signer = Signer()
    connected = at(address, timeout=_TIMEOUT)
    node = await trio.to_thread.run_sync(join, connected, signer, _INTERVAL)
    return RawNode(address, node, signer)
