"""The Fleet API of Flower 1.23 and later: nodes register, pull messages and push replies.

An error status is a trap for these nodes: most end the node's loop while its process lives on. Only
UNAVAILABLE makes a node try again, PERMISSION_DENIED says that a run is over, and UNAUTHENTICATED
ends a node for good. So nothing else is answered to a node whose signature is right.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar

import attrs
from google.protobuf.message import Message

from superlink_trio.fleet.signatures import check_key, verify
from superlink_trio.fleet.supernodes import SuperNodes
from superlink_trio.logs import Throttle
from superlink_trio.logs.context import note
from superlink_trio.rpc import Api, Caller, Holds, Refused, Status, Unary, parse, with_refusals
from superlink_trio.state.messages import MessageState, NotFound, NotPermitted
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import (
    RunRecord,
    RunStatus,
    envelopes_of,
    write_fab,
    write_object,
    write_run,
)

_log = logging.getLogger(__name__)

# Seconds that a node may name as its heartbeat interval.
_LEAST_INTERVAL, _MOST_INTERVAL = 10.0, 1800.0

# That of Flower's nodes, for one that was started before this SuperLink and has not said its own.
_USUAL_INTERVAL = 30.0

_MOST_LINES = 1000

# Nodes that are remembered, where nobody says how many.
_MOST_NODES = 100_000


NodeRequest = TypeVar("NodeRequest", bound=Message)

Verify: TypeAlias = Callable[[Caller, float], bytes]
"""Give the public key of who calls, at a Unix time in seconds. Raises Refused."""


def verify_each(caller: Caller, now: float) -> bytes:
    """Check the signature of every call."""
    return verify(caller.metadata, now)


def messages_api(
    state: MessageState,
    *,
    hold: Callable[[], float],
    readmit: bool,
    self_registration: bool = True,
    simulated: bool = False,
    holds: Holds | None = None,
    nodes: SuperNodes | None = None,
    verify: Verify = verify_each,
) -> Api:
    """Make the Fleet API over a state.

    `hold` gives the seconds for which PullMessages waits for a message: nodes sleep for 3 s after
    an empty answer. `self_registration`: whether any key may register. `readmit`: whether a node
    that is not known any more is taken back by its key; not without `self_registration`, since any
    key could come back then that had never been here.
    `simulated`: whether runs bring nodes of their own, and no other may come.
    `holds`: of the API that this one is to be a part of. `nodes` is told which nodes there are and
    what they work on. `verify` finds out who calls.
    """
    holds = Holds() if holds is None else holds
    if nodes is None:
        nodes = SuperNodes(most=lambda: _MOST_NODES, runs=state.live_runs)
    fleet = _Fleet(
        state=state,
        hold=hold,
        readmit=readmit and self_registration,
        self_registration=self_registration,
        simulated=simulated,
        holds=holds,
        nodes=nodes,
        verify=verify,
    )
    return with_refusals(
        Api(
            service="flwr.proto.Fleet",
            unary={
                "RegisterNode": fleet.register_node,
                "ActivateNode": fleet.activate_node,
                "DeactivateNode": fleet.deactivate_node,
                "UnregisterNode": fleet.unregister_node,
                "SendNodeHeartbeat": fleet.of_node(
                    pb.SendNodeHeartbeatRequest, fleet.send_heartbeat
                ),
                "PushMessages": fleet.of_node(pb.PushMessagesRequest, fleet.push_messages),
                "GetRun": fleet.of_node(pb.GetRunRequest, fleet.get_run),
                "GetFab": fleet.of_node(pb.GetFabRequest, fleet.get_fab),
                "PushObject": fleet.of_node(pb.PushObjectRequest, fleet.push_object),
                "PullObject": fleet.of_node(pb.PullObjectRequest, fleet.pull_object),
                "ConfirmMessageReceived": fleet.of_node(
                    pb.ConfirmMessageReceivedRequest, fleet.confirm
                ),
            },
            leased={"PullMessages": fleet.pull_messages},
            holds=holds,
        ),
        full=Status.UNAVAILABLE,
    )


@attrs.frozen(kw_only=True)
class _Fleet:
    state: MessageState
    hold: Callable[[], float]
    readmit: bool
    self_registration: bool
    simulated: bool
    holds: Holds
    nodes: SuperNodes
    verify: Verify
    throttle: Throttle = attrs.field(factory=lambda: Throttle(_log, burst=_MOST_LINES))

    def of_node(
        self,
        kind: type[NodeRequest],
        handle: Callable[[NodeRequest, int], Awaitable[Message]],
    ) -> Unary:
        """Make a call that a node makes in its own name."""

        async def answer(raw: bytes, caller: Caller) -> bytes:
            request = parse(kind, raw)
            node_id = await self._authenticate(request, caller)
            return (await handle(request, node_id)).SerializeToString()

        return answer

    async def _authenticate(self, request: Message, caller: Caller) -> int:
        node_id: int = request.node.node_id  # type: ignore[attr-defined]  # all of these have one
        note(node_id=node_id)
        await self._admit(node_id, caller)
        if self.nodes.called(node_id):
            self._tell(caller, "Node %d came back", node_id)
        await self._renew(node_id)
        return node_id

    async def _renew(self, node_id: int) -> None:
        """Take a call for a heartbeat where one is due, or where none is yet after a restart.

        Not more often: what a heartbeat changes is stored. What a node that has left had sent
        before does not bring it back.
        """
        node = self.state.node(node_id)
        if node is None or node.deactivated_at is not None:
            return
        interval = node.heartbeat_interval or _USUAL_INTERVAL
        if node.online_until - self.state.now() < interval:
            await self.state.heartbeat(node_id, interval)
            self.nodes.heard(node_id, interval)

    async def _admit(self, node_id: int, caller: Caller) -> None:
        key = self.verify(caller, self.state.now())
        if not await self.state.admit_node(node_id, key, readmit=self.readmit):
            raise Refused(
                Status.UNAUTHENTICATED,
                f"Invalid SuperNode authentication: node {node_id} is not the key's: start the "
                "SuperNode again.",
            )

    # Coming and going

    async def register_node(self, raw: bytes, caller: Caller) -> bytes:
        request = parse(pb.RegisterNodeFleetRequest, raw)
        key = self._own_key(request.public_key, caller)
        self._check_that_nodes_may_come()
        if not self.self_registration:
            raise Refused(
                Status.FAILED_PRECONDITION,
                "Nodes do not register themselves here: the operator has to do it, with "
                "`flwr supernode register`.",
            )
        try:
            node_id = await self.state.register_node(key, itself=True)
        except NotPermitted as error:
            raise Refused(Status.FAILED_PRECONDITION, f"{error}") from None
        self._tell(caller, "Node %d joined from %s", node_id, caller.connection)
        return pb.RegisterNodeFleetResponse(node_id=node_id).SerializeToString()

    async def activate_node(self, raw: bytes, caller: Caller) -> bytes:
        request = parse(pb.ActivateNodeRequest, raw)
        key = self._own_key(request.public_key, caller)
        self._check_that_nodes_may_come()
        interval = request.heartbeat_interval
        if not _LEAST_INTERVAL <= interval <= _MOST_INTERVAL:
            raise Refused(
                Status.INVALID_ARGUMENT,
                f"heartbeat_interval must be {_LEAST_INTERVAL:g} to {_MOST_INTERVAL:g} seconds, "
                f"not {interval}",
            )
        try:
            node_id = await self.state.activate_node(key, interval)
        except NotFound as error:
            raise Refused(Status.FAILED_PRECONDITION, f"{error}") from None
        self.nodes.activated(node_id, interval)
        self._tell(caller, "Node %d is online", node_id)
        return pb.ActivateNodeResponse(node_id=node_id).SerializeToString()

    def _check_that_nodes_may_come(self) -> None:
        if self.simulated:
            raise Refused(
                Status.FAILED_PRECONDITION,
                "This SuperLink simulates the nodes of its runs (--simulation): SuperNodes need "
                "one without.",
            )

    def _own_key(self, claimed: bytes, caller: Caller) -> bytes:
        key = self.verify(caller, self.state.now())
        if claimed != key:
            raise Refused(
                Status.UNAUTHENTICATED,
                "Invalid SuperNode authentication: the request names another key than its headers.",
            )
        check_key(key)
        return key

    async def deactivate_node(self, raw: bytes, caller: Caller) -> bytes:
        node_id = parse(pb.DeactivateNodeRequest, raw).node_id
        await self._admit(node_id, caller)
        await self.state.deactivate_node(node_id)
        self.nodes.left(node_id)
        self._tell(caller, "Node %d left", node_id)
        return b""

    async def unregister_node(self, raw: bytes, caller: Caller) -> bytes:
        node_id = parse(pb.UnregisterNodeFleetRequest, raw).node_id
        await self._admit(node_id, caller)
        await self.state.unregister_node(node_id)
        self.nodes.left(node_id)
        return b""

    async def send_heartbeat(
        self, request: pb.SendNodeHeartbeatRequest, node_id: int
    ) -> pb.SendNodeHeartbeatResponse:
        interval = min(max(request.heartbeat_interval, _LEAST_INTERVAL), _MOST_INTERVAL)
        known = await self.state.heartbeat(node_id, interval)
        if known:
            self.nodes.heard(node_id, interval)
        return pb.SendNodeHeartbeatResponse(success=known)

    # Messages

    @asynccontextmanager
    async def pull_messages(self, raw: bytes, caller: Caller) -> AsyncIterator[bytes]:
        request = parse(pb.PullMessagesRequest, raw)
        node_id = await self._authenticate(request, caller)
        with self.holds.open(self.hold()):
            await self.state.await_instruction(node_id)
        envelope = await self.state.take(node_id)
        response = pb.PullMessagesResponse()
        if envelope is not None:
            meta = envelope.message.metadata
            note(run_id=meta.run_id, round=meta.group_id, message_id=meta.message_id)
            response.messages_list.append(envelope.message)
            response.message_object_trees.append(envelope.tree)
            self.nodes.given(node_id, envelope)
        # What is not confirmed is given again: nothing is to be done where this does not arrive.
        yield response.SerializeToString()

    async def push_messages(
        self, request: pb.PushMessagesRequest, node_id: int
    ) -> pb.PushMessagesResponse:
        envelopes = envelopes_of(request.messages_list, request.message_object_trees)
        response = pb.PushMessagesResponse()
        for envelope in envelopes:
            run_id = envelope.message.metadata.run_id
            await self._running(run_id)
            note(run_id=run_id, message_id=envelope.message_id)
            pushed = await self.state.push(run_id, node_id, [envelope])
            self.nodes.replied(node_id, envelope.message.metadata.reply_to_message_id)
            response.results[envelope.message_id] = 0
            response.objects_to_push.extend(pushed.missing)
            response.session_id = pushed.session_id
        return response

    async def get_run(self, request: pb.GetRunRequest, _: int) -> pb.GetRunResponse:
        return pb.GetRunResponse(run=write_run(await self._running(request.run_id)))

    async def get_fab(self, request: pb.GetFabRequest, _: int) -> pb.GetFabResponse:
        run = await self._running(request.run_id)
        fab = await self.state.fab(run.fab_hash)
        if fab is None or request.hash_str != run.fab_hash:
            raise Refused(Status.PERMISSION_DENIED, "That is not the bundle of the run.")
        return pb.GetFabResponse(fab=write_fab(fab))

    # Objects

    async def push_object(
        self, request: pb.PushObjectRequest, node_id: int
    ) -> pb.PushObjectResponse:
        await self._running(request.run_id)
        await self.state.put_object(
            request.run_id, node_id, request.object_id, request.object_content
        )
        return pb.PushObjectResponse(stored=True)

    async def pull_object(
        self, request: pb.PullObjectRequest, node_id: int
    ) -> pb.PullObjectResponse:
        try:
            await self._running(request.run_id)
        except Refused:
            if self.holds.released:
                # The next SuperLink does not know what this one has refused.
                raise Refused(Status.UNAVAILABLE, "The server is stopping.") from None
            self.nodes.refused_part(node_id)
            raise
        content = await self.state.get_object(request.run_id, node_id, request.object_id)
        return write_object(content)

    async def confirm(
        self, request: pb.ConfirmMessageReceivedRequest, node_id: int
    ) -> pb.ConfirmMessageReceivedResponse:
        # Nodes of 1.23 to 1.32 overlook that an object was refused. Were this granted then, such a
        # node would wait for ever for the reply to a message that it has a part of. One that has
        # all of it works on it, whatever is answered: if this is refused, it is not prepared for
        # the reply, and takes it for that of the next message.
        if not self.nodes.has_all(node_id):
            await self._running(request.run_id)
        await self.state.confirm(request.run_id, node_id, request.message_object_id)
        return pb.ConfirmMessageReceivedResponse()

    async def _running(self, run_id: int) -> RunRecord:
        run = await self.state.run(run_id)
        if run is None or run.status is not RunStatus.RUNNING:
            state = "not known" if run is None else run.status.value
            raise Refused(Status.PERMISSION_DENIED, f"Run {run_id} is {state}, not running.")
        return run

    def _tell(self, caller: Caller, message: str, node_id: int, *arguments: object) -> None:
        note(node_id=node_id)
        self.throttle.log(
            logging.INFO, caller.host, message, node_id, *arguments, extra={"node_id": node_id}
        )
