"""The Fleet API of Flower 1.23 and later, whatever carries it."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import partial
from typing import TypeVar

import attrs
import pytest
import trio
from google.protobuf.message import Message
from peering.parcels import Parcel, parcel
from signing import Signer
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.fleet import SuperNodes
from superlink_trio.fleet.messages_api import messages_api
from superlink_trio.rpc import Api, Refused, Status
from superlink_trio.state import StateLimits
from superlink_trio.state.messages import SERVER, MemoryMessages, NewRun
from superlink_trio.state.messages.interface import EVICT_AFTER
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import Outcome, write_node
from superlink_trio.wire.runs import Fab

BEGAN = 1_800_000_000.0
HOLD = 100.0

Response = TypeVar("Response", bound=Message)


@pytest.fixture
def state(mock_clock: MockClock) -> MemoryMessages:
    return MemoryMessages(clock=lambda: BEGAN + trio.current_time())


@attrs.define
class Node:
    """A SuperNode, as the API sees it."""

    api: Api
    signer: Signer = attrs.field(factory=Signer)
    node_id: int = 0

    async def call(self, name: str, request: Message, response: type[Response]) -> Response:
        raw = request.SerializeToString()
        caller = self.signer.caller(BEGAN + trio.current_time())
        if name in self.api.leased:
            async with self.api.leased[name](raw, caller) as answer:
                return response.FromString(answer)
        return response.FromString(await self.api.unary[name](raw, caller))

    async def register(self) -> int:
        request = pb.RegisterNodeFleetRequest(public_key=self.signer.public)
        response = await self.call("RegisterNode", request, pb.RegisterNodeFleetResponse)
        return response.node_id

    async def activate(self, interval: float = 30.0) -> int:
        request = pb.ActivateNodeRequest(public_key=self.signer.public, heartbeat_interval=interval)
        self.node_id = (await self.call("ActivateNode", request, pb.ActivateNodeResponse)).node_id
        return self.node_id

    @property
    def node(self) -> pb.Node:
        return pb.Node(node_id=self.node_id)

    async def get_run(self) -> None:
        """Call for a run that is not there, which is no matter."""
        request = pb.GetRunRequest(node=self.node, run_id=777)
        with suppress(Refused):
            await self.call("GetRun", request, pb.GetRunResponse)

    async def pull(self) -> pb.PullMessagesResponse:
        request = pb.PullMessagesRequest(node=self.node)
        return await self.call("PullMessages", request, pb.PullMessagesResponse)

    async def pull_object(self, run_id: int, object_id: str) -> pb.PullObjectResponse:
        request = pb.PullObjectRequest(node=self.node, run_id=run_id, object_id=object_id)
        return await self.call("PullObject", request, pb.PullObjectResponse)

    async def confirm(self, asked: Parcel) -> None:
        request = pb.ConfirmMessageReceivedRequest(
            node=self.node, run_id=asked.run_id, message_object_id=asked.message_id
        )
        await self.call("ConfirmMessageReceived", request, pb.ConfirmMessageReceivedResponse)


def api(
    state: MemoryMessages,
    *,
    readmit: bool = True,
    self_registration: bool = True,
    simulated: bool = False,
) -> Api:
    return messages_api(
        state,
        hold=lambda: HOLD,
        readmit=readmit,
        self_registration=self_registration,
        simulated=simulated,
    )


@pytest.fixture
def node(state: MemoryMessages) -> Node:
    return Node(api(state))


async def a_run(state: MemoryMessages) -> int:
    fab = Fab(hash=hashlib.sha256(b"fab").hexdigest(), content=b"fab")
    await state.create_run(NewRun(fab=fab, fab_id="me/app", fab_version="1"))
    claim = await state.claim_run()
    assert claim is not None
    return (await state.begin_run(claim.token)).run_id


async def given(node: Node, state: MemoryMessages) -> Parcel:
    """Let a node pull a message of a new run, but for its objects."""
    run_id = await a_run(state)
    asked = parcel(run_id, to=node.node_id)
    await state.push(run_id, SERVER, [asked.envelope])
    for object_id, content in asked.objects.items():
        await state.put_object(run_id, SERVER, object_id, content)
    [message] = (await node.pull()).messages_list
    assert message.metadata.message_id == asked.message_id
    return asked


def after_a_restart(node: Node, state: MemoryMessages) -> Node:
    """The same node, before a SuperLink that has kept nothing."""
    anew = api(MemoryMessages(clock=state.now))
    return Node(anew, signer=node.signer, node_id=node.node_id)


def status_of(state: MemoryMessages, node_id: int) -> str:
    """What `flwr supernode list` and operators are told of a node."""
    node = state.node(node_id)
    assert node is not None
    return write_node(node, state.now()).status


async def refused(call: object, status: Status) -> str:
    with pytest.raises(Refused) as caught:
        await call  # type: ignore[misc]  # a coroutine of any kind
    assert caught.value.status is status
    return caught.value.message


async def test_no_node_joins_where_nodes_are_simulated(
    state: MemoryMessages, mock_clock: MockClock
) -> None:
    node = Node(api(state, simulated=True))
    for step in (node.register(), node.activate()):
        assert "--simulation" in await refused(step, Status.FAILED_PRECONDITION)


async def test_a_node_joins_works_and_leaves(
    node: Node, state: MemoryMessages, mock_clock: MockClock
) -> None:
    registered = await node.register()
    assert await node.activate() == registered
    run_id = await a_run(state)
    asked = parcel(run_id, to=node.node_id)
    await state.push(run_id, SERVER, [asked.envelope])
    for object_id, content in asked.objects.items():
        await state.put_object(run_id, SERVER, object_id, content)

    pulled = await node.pull()
    [message], [tree] = pulled.messages_list, pulled.message_object_trees
    assert message.metadata.message_id == tree.object_id == asked.message_id
    assert message.HasField("content")

    run = await node.call(
        "GetRun", pb.GetRunRequest(node=node.node, run_id=run_id), pb.GetRunResponse
    )
    assert run.run.fab_id == "me/app"
    assert run.run.series_id
    fab = await node.call(
        "GetFab",
        pb.GetFabRequest(node=node.node, run_id=run_id, hash_str=run.run.fab_hash),
        pb.GetFabResponse,
    )
    assert fab.fab.content == b"fab"
    for object_id, content in asked.objects.items():
        request = pb.PullObjectRequest(node=node.node, run_id=run_id, object_id=object_id)
        found = await node.call("PullObject", request, pb.PullObjectResponse)
        assert (found.object_found, found.object_available) == (True, True)
        assert found.object_content == content
    await node.call(
        "ConfirmMessageReceived",
        pb.ConfirmMessageReceivedRequest(
            node=node.node, run_id=run_id, message_object_id=asked.message_id
        ),
        pb.ConfirmMessageReceivedResponse,
    )

    reply = parcel(run_id, source=node.node_id, to=SERVER, reply_to=asked.message_id)
    pushed = await node.call(
        "PushMessages",
        pb.PushMessagesRequest(
            node=node.node,
            messages_list=[reply.envelope.message],
            message_object_trees=[reply.envelope.tree],
        ),
        pb.PushMessagesResponse,
    )
    assert pushed.session_id
    for object_id in pushed.objects_to_push:
        push = pb.PushObjectRequest(
            node=node.node,
            run_id=run_id,
            object_id=object_id,
            object_content=reply.objects[object_id],
        )
        assert (await node.call("PushObject", push, pb.PushObjectResponse)).stored
    [answer] = await state.take_replies(run_id, [asked.message_id])
    assert answer.message_id == reply.message_id

    await node.call(
        "DeactivateNode", pb.DeactivateNodeRequest(node_id=node.node_id), pb.DeactivateNodeResponse
    )
    assert await state.online_nodes() == []
    await node.call(
        "UnregisterNode",
        pb.UnregisterNodeFleetRequest(node_id=node.node_id),
        pb.UnregisterNodeFleetResponse,
    )
    assert await state.nodes() == ()


async def test_a_pull_is_held_until_there_is_a_message(
    node: Node, state: MemoryMessages, mock_clock: MockClock
) -> None:
    await node.register()
    await node.activate()
    run_id = await a_run(state)
    asked = parcel(run_id, to=node.node_id)
    pulled: list[pb.PullMessagesResponse] = []

    async def pull() -> None:
        pulled.append(await node.pull())

    with trio.fail_after(HOLD / 2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pull)
            await wait_all_tasks_blocked()
            await state.push(run_id, SERVER, [asked.envelope])
            for object_id, content in asked.objects.items():
                await state.put_object(run_id, SERVER, object_id, content)
    assert len(pulled[0].messages_list) == 1


async def test_a_pull_is_answered_empty_when_the_hold_is_over(
    node: Node, autojump_clock: MockClock
) -> None:
    await node.register()
    await node.activate()
    assert not (await node.pull()).messages_list
    assert trio.current_time() == pytest.approx(HOLD)


async def test_heartbeats_keep_a_node_online(
    node: Node, state: MemoryMessages, autojump_clock: MockClock
) -> None:
    await node.register()
    await node.activate(10.0)
    for _ in range(5):
        await trio.sleep(15)
        request = pb.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=10.0)
        response = await node.call("SendNodeHeartbeat", request, pb.SendNodeHeartbeatResponse)
        assert response.success
    assert await state.online_nodes() == [node.node_id]


async def test_a_node_tries_again_where_there_is_no_room(mock_clock: MockClock) -> None:
    state = MemoryMessages(
        clock=lambda: BEGAN + trio.current_time(), limits=StateLimits(nodes=1, stored_size=10)
    )
    node, other = Node(api(state)), Node(api(state))
    await node.register()
    await refused(other.register(), Status.UNAVAILABLE)
    other.node_id = 7
    await refused(other.pull(), Status.UNAVAILABLE)
    await node.activate()
    run_id = await a_run(state)
    asked = parcel(run_id, to=node.node_id)
    await state.push(run_id, SERVER, [asked.envelope])
    reply = parcel(run_id, source=node.node_id, to=SERVER, reply_to=asked.message_id)
    await state.push(run_id, node.node_id, [reply.envelope])
    request = pb.PushObjectRequest(
        node=node.node,
        run_id=run_id,
        object_id=reply.message_id,
        object_content=reply.objects[reply.message_id],
    )
    call = node.call("PushObject", request, pb.PushObjectResponse)
    await refused(call, Status.UNAVAILABLE)


async def test_a_node_may_activate_again(node: Node, mock_clock: MockClock) -> None:
    await node.register()
    assert await node.activate() == await node.activate()


async def test_what_a_node_cannot_do(
    node: Node, state: MemoryMessages, mock_clock: MockClock
) -> None:
    assert "no node is registered" in await refused(node.activate(), Status.FAILED_PRECONDITION)
    await node.register()
    assert "has a node already" in await refused(node.register(), Status.FAILED_PRECONDITION)
    assert "10 to 1800 seconds" in await refused(node.activate(5), Status.INVALID_ARGUMENT)


async def test_nodes_speak_for_themselves_only(
    node: Node, state: MemoryMessages, mock_clock: MockClock
) -> None:
    await node.register()
    await node.activate()
    thief = Node(node.api, node_id=node.node_id)
    assert "not the key's" in await refused(thief.pull(), Status.UNAUTHENTICATED)
    thief.signer = Signer(node.signer.key)
    other = Signer()
    request = pb.RegisterNodeFleetRequest(public_key=other.public)
    call = thief.call("RegisterNode", request, pb.RegisterNodeFleetResponse)
    assert "another key" in await refused(call, Status.UNAUTHENTICATED)


async def test_a_node_comes_back_after_a_restart(mock_clock: MockClock) -> None:
    anew = MemoryMessages(clock=lambda: BEGAN + trio.current_time())
    node = Node(api(anew), node_id=12345)
    request = pb.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30)
    assert (await node.call("SendNodeHeartbeat", request, pb.SendNodeHeartbeatResponse)).success
    assert await anew.online_nodes() == [12345]
    strict = Node(api(anew, readmit=False), node_id=777)
    assert "start the SuperNode again" in await refused(strict.pull(), Status.UNAUTHENTICATED)


async def test_a_node_that_is_taken_back_is_online_with_its_first_call(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    anew = MemoryMessages(clock=lambda: BEGAN + trio.current_time())
    nodes = SuperNodes(most=lambda: 10, runs=anew.live_runs)
    shared = messages_api(anew, hold=lambda: HOLD, readmit=True, nodes=nodes)
    node = Node(shared, node_id=12345)
    nursery.start_soon(node.pull)
    await wait_all_tasks_blocked()
    assert await anew.online_nodes() == [12345]
    assert nodes.views()[0].online
    assert status_of(anew, 12345) == "online"
    mock_clock.jump(2 * 30 + 1)
    assert status_of(anew, 12345) == "offline"


async def test_calls_keep_a_node_online_whose_heartbeats_are_missing(
    node: Node, state: MemoryMessages, autojump_clock: MockClock
) -> None:
    await node.register()
    await node.activate(30.0)
    for _ in range(5):
        await node.get_run()
        await trio.sleep(25)
        assert await state.online_nodes() == [node.node_id]
    await trio.sleep(2 * 30)
    assert await state.online_nodes() == []


async def test_what_a_node_that_has_left_sends_still_does_not_bring_it_back(
    node: Node, state: MemoryMessages, mock_clock: MockClock
) -> None:
    await node.register()
    await node.activate()
    leave = pb.DeactivateNodeRequest(node_id=node.node_id)
    await node.call("DeactivateNode", leave, pb.DeactivateNodeResponse)
    await node.get_run()
    assert await state.online_nodes() == []
    assert status_of(state, node.node_id) == "offline"


async def test_only_the_operator_registers_where_nodes_have_to_be_known(
    state: MemoryMessages, mock_clock: MockClock
) -> None:
    node = Node(api(state, self_registration=False))
    message = await refused(node.register(), Status.FAILED_PRECONDITION)
    assert "flwr supernode register" in message
    await state.register_node(node.signer.public)
    await node.activate()


async def test_no_unknown_key_comes_back_where_nodes_have_to_be_known(
    state: MemoryMessages, mock_clock: MockClock
) -> None:
    stranger = Node(api(state, self_registration=False), node_id=12345)
    await refused(stranger.pull(), Status.UNAUTHENTICATED)
    assert await state.nodes() == ()


async def test_a_node_that_gave_way_to_another_comes_back(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "superlink_trio.fleet.messages_api")
    state = MemoryMessages(clock=lambda: BEGAN + trio.current_time(), limits=StateLimits(nodes=1))
    nodes = SuperNodes(most=lambda: 1, runs=state.live_runs)
    shared = messages_api(state, hold=lambda: HOLD, readmit=True, nodes=nodes)
    node, other = Node(shared), Node(shared)
    await node.register()
    await node.activate()
    mock_clock.jump(2 * 30 + EVICT_AFTER + 1)
    await other.register()
    await other.activate(10)
    request = pb.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30)
    beat = partial(node.call, "SendNodeHeartbeat", request, pb.SendNodeHeartbeatResponse)
    await refused(beat(), Status.UNAVAILABLE)
    mock_clock.jump(2 * 10 + EVICT_AFTER + 1)
    assert (await beat()).success
    assert (await beat()).success
    assert caplog.messages.count(f"Node {node.node_id} came back") == 1
    assert await state.online_nodes() == [node.node_id]


async def test_whoever_looks_sees_what_a_node_works_on(
    state: MemoryMessages, mock_clock: MockClock
) -> None:
    nodes = SuperNodes(most=lambda: 10, runs=state.live_runs)
    node = Node(messages_api(state, hold=lambda: HOLD, readmit=True, nodes=nodes))
    await node.register()
    await node.activate()
    run_id = await a_run(state)
    asked = parcel(run_id, to=node.node_id)
    await state.push(run_id, SERVER, [asked.envelope])
    for object_id, content in asked.objects.items():
        await state.put_object(run_id, SERVER, object_id, content)
    await node.pull()
    [view] = nodes.views()
    assert view.work is not None
    assert (view.node_id, view.online, view.work.id) == (node.node_id, True, asked.message_id)
    reply = parcel(run_id, source=node.node_id, to=SERVER, reply_to=asked.message_id)
    request = pb.PushMessagesRequest(
        node=node.node,
        messages_list=[reply.envelope.message],
        message_object_trees=[reply.envelope.tree],
    )
    await node.call("PushMessages", request, pb.PushMessagesResponse)
    assert nodes.views()[0].work is None
    leave = pb.DeactivateNodeRequest(node_id=node.node_id)
    await node.call("DeactivateNode", leave, pb.DeactivateNodeResponse)
    assert nodes.views() == []


async def test_a_run_that_is_over_is_told_by_the_one_status_that_nodes_bear(
    node: Node, state: MemoryMessages, mock_clock: MockClock
) -> None:
    await node.register()
    await node.activate()
    run_id = await a_run(state)
    await state.finish_run(run_id, Outcome.STOPPED)
    request = pb.GetRunRequest(node=node.node, run_id=run_id)
    call = node.call("GetRun", request, pb.GetRunResponse)
    assert "finished" in await refused(call, Status.PERMISSION_DENIED)
    request = pb.GetRunRequest(node=node.node, run_id=777)
    call = node.call("GetRun", request, pb.GetRunResponse)
    assert "not known" in await refused(call, Status.PERMISSION_DENIED)


async def test_a_node_that_lacks_a_part_as_its_run_is_over_is_told_when_it_confirms(
    node: Node, state: MemoryMessages, mock_clock: MockClock
) -> None:
    await node.register()
    await node.activate()
    asked = await given(node, state)
    await state.finish_run(asked.run_id, Outcome.STOPPED)
    for receiving in (node, after_a_restart(node, state)):
        for object_id in asked.objects:
            pulling = receiving.pull_object(asked.run_id, object_id)
            await refused(pulling, Status.PERMISSION_DENIED)
        await refused(receiving.confirm(asked), Status.PERMISSION_DENIED)


async def test_a_node_that_has_all_of_a_message_may_confirm_it_when_its_run_is_over(
    node: Node, state: MemoryMessages, mock_clock: MockClock
) -> None:
    await node.register()
    await node.activate()
    lacking = await given(node, state)
    await state.finish_run(lacking.run_id, Outcome.STOPPED)
    pulling = node.pull_object(lacking.run_id, lacking.message_id)
    await refused(pulling, Status.PERMISSION_DENIED)
    asked = await given(node, state)
    for object_id, content in asked.objects.items():
        assert (await node.pull_object(asked.run_id, object_id)).object_content == content
    await state.finish_run(asked.run_id, Outcome.STOPPED)
    for receiving in (node, after_a_restart(node, state)):
        await receiving.confirm(asked)


async def test_a_server_that_stops_leaves_it_to_the_next_to_say_that_a_run_is_over(
    node: Node, state: MemoryMessages, mock_clock: MockClock
) -> None:
    await node.register()
    await node.activate()
    asked = await given(node, state)
    await state.finish_run(asked.run_id, Outcome.FAILED)
    node.api.holds.release()
    await refused(node.pull_object(asked.run_id, asked.message_id), Status.UNAVAILABLE)


@pytest.mark.parametrize("name", ["PullMessages", "GetRun", "PushObject", "RegisterNode"])
async def test_junk_is_refused(node: Node, name: str, mock_clock: MockClock) -> None:
    caller = node.signer.caller(BEGAN)

    async def call() -> None:
        if name in node.api.leased:
            async with node.api.leased[name](b"\xff", caller):
                pass
        else:
            await node.api.unary[name](b"\xff", caller)

    assert "are no" in await refused(call(), Status.INVALID_ARGUMENT)
