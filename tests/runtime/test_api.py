"""The Runtime API, whatever carries it."""

from __future__ import annotations

import hashlib
import re
from typing import TypeVar

import attrs
import pytest
import trio
from google.protobuf.message import Message
from peering.parcels import parcel
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.rpc import Api, Caller, Refused, Status
from superlink_trio.runtime import NoSuperExecs, runtime_api
from superlink_trio.state.messages import SERVER, MemoryMessages, NewRun
from superlink_trio.state.messages.interface import MESSAGE_UNAVAILABLE
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import Outcome, RunRecord, RunStatus
from superlink_trio.wire.runs import Fab

BEGAN = 1_800_000_000.0
HOLD = 5.0

Response = TypeVar("Response", bound=Message)


@pytest.fixture
def state(mock_clock: MockClock) -> MemoryMessages:
    return MemoryMessages(clock=lambda: BEGAN + trio.current_time())


@attrs.define
class App:
    """The process of a run, as the API sees it."""

    api: Api
    run: RunRecord
    token: str

    async def call(self, name: str, request: Message, response: type[Response]) -> Response:
        caller = Caller("127.0.0.1:4711", {"flwr-task-token": self.token})
        raw = request.SerializeToString()
        if name in self.api.leased:
            async with self.api.leased[name](raw, caller) as answer:
                return response.FromString(answer)
        return response.FromString(await self.api.unary[name](raw, caller))

    async def begin(self) -> pb.PullTaskInputResponse:
        return await self.call("PullTaskInput", pb.PullTaskInputRequest(), pb.PullTaskInputResponse)

    async def pull(self, *message_ids: str) -> pb.PullAppMessagesResponse:
        request = pb.PullAppMessagesRequest(message_ids=message_ids)
        return await self.call("PullMessages", request, pb.PullAppMessagesResponse)


@pytest.fixture
async def app(state: MemoryMessages) -> App:
    fab = Fab(hash=hashlib.sha256(b"fab").hexdigest(), content=b"fab")
    new = NewRun(fab=fab, fab_id="me/app", fab_version="1", override_config={"rounds": 3})
    await state.create_run(new)
    claim = await state.claim_run()
    assert claim is not None
    api = runtime_api(state, hold=lambda: HOLD, superexecs=NoSuperExecs())
    return App(api, claim.run, claim.token)


async def a_node(state: MemoryMessages) -> int:
    await state.register_node(b"key")
    return await state.activate_node(b"key", 30.0)


async def test_a_run_from_input_to_output(
    app: App, state: MemoryMessages, mock_clock: MockClock
) -> None:
    given = await app.begin()
    assert given.run.run_id == given.context.run_id == app.run.run_id
    assert given.run.status.status == "running"
    assert given.run.primary_task_type == "flwr-serverapp"
    assert not given.HasField("federation_config")
    assert given.run.override_config["rounds"].sint64_value == 3
    assert given.context.node_id == SERVER
    assert given.context.HasField("state")
    assert given.context.series_id == given.run.series_id == app.run.series_id
    assert given.fab.content == b"fab"
    assert given.task_id == given.run.primary_task_id == app.run.task_id

    logs = pb.PushLogsRequest(run_id=app.run.run_id, logs=["one\n", "two\n"])
    await app.call("PushLogs", logs, pb.PushLogsResponse)
    assert (await state.logs(app.run.run_id, 0.0)).text == "one\ntwo\n"

    output = pb.PushTaskOutputRequest(sub_status="completed", details="well done")
    await app.call("PushTaskOutput", output, pb.PushTaskOutputResponse)
    run = await state.run(app.run.run_id)
    assert run is not None
    assert (run.status, run.outcome, run.details) == (
        *(RunStatus.FINISHED, Outcome.COMPLETED),
        "well done",
    )
    with pytest.raises(Refused) as caught:
        await app.pull()
    assert caught.value.status is Status.UNAUTHENTICATED
    heartbeat = pb.SendTaskHeartbeatRequest()
    beat = await app.call("SendTaskHeartbeat", heartbeat, pb.SendTaskHeartbeatResponse)
    assert not beat.success


async def test_a_run_that_is_simulated_learns_how(
    state: MemoryMessages, mock_clock: MockClock
) -> None:
    fab = Fab(hash=hashlib.sha256(b"fab").hexdigest(), content=b"fab")
    simulation = pb.SimulationConfig(num_supernodes=3)
    await state.create_run(NewRun(fab=fab, fab_id="me/app", fab_version="1", simulation=simulation))
    claim = await state.claim_run()
    assert claim is not None
    api = runtime_api(state, hold=lambda: HOLD, superexecs=NoSuperExecs())
    given = await App(api, claim.run, claim.token).begin()
    assert given.federation_config == simulation
    assert given.run.primary_task_type == "flwr-simulation"


async def test_what_the_app_says_of_its_end_counts_as_failed_unless_it_is_known(
    app: App, state: MemoryMessages, mock_clock: MockClock
) -> None:
    await app.begin()
    output = pb.PushTaskOutputRequest(sub_status="something")
    await app.call("PushTaskOutput", output, pb.PushTaskOutputResponse)
    run = await state.run(app.run.run_id)
    assert run is not None
    assert run.outcome is Outcome.FAILED


async def test_a_run_begins_once(app: App, mock_clock: MockClock) -> None:
    await app.begin()
    with pytest.raises(Refused) as caught:
        await app.begin()
    assert caught.value.status is Status.FAILED_PRECONDITION


async def test_a_token_that_is_none_is_refused(app: App, mock_clock: MockClock) -> None:
    app.token = "no"
    for call in (app.begin, app.pull):
        with pytest.raises(Refused) as caught:
            await call()
        assert caught.value.status is Status.UNAUTHENTICATED


async def test_instructions_and_replies(
    app: App, state: MemoryMessages, mock_clock: MockClock
) -> None:
    await app.begin()
    node_id = await a_node(state)
    nodes = await app.call("GetNodes", pb.GetNodesRequest(), pb.GetNodesResponse)
    assert [(node.node_id, node.status) for node in nodes.nodes] == [(node_id, "online")]

    asked = parcel(app.run.run_id, to=node_id)
    pushed = await app.call(
        "PushMessages",
        pb.PushAppMessagesRequest(
            messages_list=[asked.envelope.message], message_object_trees=[asked.envelope.tree]
        ),
        pb.PushAppMessagesResponse,
    )
    assert pushed.message_ids == [asked.message_id]
    for object_id in pushed.objects_to_push:
        request = pb.PushObjectRequest(object_id=object_id, object_content=asked.objects[object_id])
        assert (await app.call("PushObject", request, pb.PushObjectResponse)).stored
    assert await state.take(node_id) is not None
    await state.confirm(app.run.run_id, node_id, asked.message_id)
    # Its answer was lost, and it does not know that the node has the message since.
    assert (await app.call("PushObject", request, pb.PushObjectResponse)).stored

    reply = parcel(app.run.run_id, source=node_id, to=SERVER, reply_to=asked.message_id)
    await state.push(app.run.run_id, node_id, [reply.envelope])
    for object_id, content in reply.objects.items():
        await state.put_object(app.run.run_id, node_id, object_id, content)
    pulled = await app.pull(asked.message_id)
    assert [tree.object_id for tree in pulled.message_object_trees] == [reply.message_id]
    for object_id, content in reply.objects.items():
        found = await app.call(
            "PullObject", pb.PullObjectRequest(object_id=object_id), pb.PullObjectResponse
        )
        assert found.object_content == content
    await app.call(
        "ConfirmMessageReceived",
        pb.ConfirmMessageReceivedRequest(message_object_id=reply.message_id),
        pb.ConfirmMessageReceivedResponse,
    )
    found = await app.call(
        "PullObject", pb.PullObjectRequest(object_id=reply.message_id), pb.PullObjectResponse
    )
    assert not found.object_found


async def test_a_pull_waits_for_replies_but_not_for_ever(
    app: App, state: MemoryMessages, autojump_clock: MockClock
) -> None:
    await app.begin()
    node_id = await a_node(state)
    asked = parcel(app.run.run_id, to=node_id)
    await state.push(app.run.run_id, SERVER, [asked.envelope])
    assert not (await app.pull(asked.message_id)).messages_list
    assert trio.current_time() == pytest.approx(HOLD)


async def test_a_pull_is_answered_when_the_server_stops(
    app: App, state: MemoryMessages, mock_clock: MockClock
) -> None:
    await app.begin()
    asked = parcel(app.run.run_id, to=await a_node(state))
    await state.push(app.run.run_id, SERVER, [asked.envelope])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.pull, asked.message_id)
        await wait_all_tasks_blocked()
        app.api.holds.release()


async def test_a_pull_ends_with_its_run(
    app: App, state: MemoryMessages, mock_clock: MockClock
) -> None:
    await app.begin()
    asked = parcel(app.run.run_id, to=await a_node(state))
    await state.push(app.run.run_id, SERVER, [asked.envelope])
    refused: list[Status] = []

    async def pull() -> None:
        with pytest.raises(Refused) as caught:
            await app.pull(asked.message_id)
        refused.append(caught.value.status)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pull)
        await wait_all_tasks_blocked()
        await state.finish_run(app.run.run_id, Outcome.STOPPED)
    assert refused == [Status.UNAUTHENTICATED]


@pytest.mark.parametrize("fault", ["no tree", "no content", "content and error", "content"])
async def test_messages_that_are_none_are_refused(
    app: App, fault: str, mock_clock: MockClock
) -> None:
    await app.begin()
    asked = parcel(app.run.run_id, to=7).envelope
    trees = [] if fault == "no tree" else [asked.tree]
    if fault == "no content":
        asked.message.ClearField("content")
    elif fault == "content and error":
        asked.message.error.code = 1
    elif fault == "content":
        asked.message.content = b"weights"
    request = pb.PushAppMessagesRequest(messages_list=[asked.message], message_object_trees=trees)
    with pytest.raises(Refused) as caught:
        await app.call("PushMessages", request, pb.PushAppMessagesResponse)
    assert caught.value.status is Status.INVALID_ARGUMENT


async def test_ids_that_no_message_can_have_are_refused(app: App, mock_clock: MockClock) -> None:
    await app.begin()
    for text in ("a\0b", "f" * 63, "F" * 64, "0" * 12_800):
        with pytest.raises(Refused, match=re.escape(repr(text[:80]))) as caught:
            await app.pull("0" * 64, text)
        assert caught.value.status is Status.INVALID_ARGUMENT


async def test_what_a_refused_push_was_answered_with_may_be_asked_for(
    app: App, mock_clock: MockClock
) -> None:
    await app.begin()
    [unknown] = (await app.pull("")).messages_list
    assert unknown.error.code == MESSAGE_UNAVAILABLE
