"""The Control API, whatever carries it."""

from __future__ import annotations

from typing import TypeVar

import attrs
import pytest
import trio
from google.protobuf.message import Message
from peering.parcels import bundle
from signing import Signer
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.control import control_api
from superlink_trio.fleet.signatures import check_key
from superlink_trio.rpc import Api, Caller, ClientGone, Refused, Status
from superlink_trio.state.messages import MemoryMessages
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import FEDERATION, Outcome

BEGAN = 1_800_000_000.0
CALLER = Caller("127.0.0.1:4711")

Response = TypeVar("Response", bound=Message)


@pytest.fixture
def state(mock_clock: MockClock) -> MemoryMessages:
    return MemoryMessages(clock=lambda: BEGAN + trio.current_time())


@pytest.fixture
def api(state: MemoryMessages) -> Api:
    return control_api(state, check_key)


async def call(api: Api, name: str, request: Message, response: type[Response]) -> Response:
    return response.FromString(await api.unary[name](request.SerializeToString(), CALLER))


async def start(api: Api, fab: pb.Fab | None = None, **fields: object) -> pb.StartRunResponse:
    request = pb.StartRunRequest(fab=fab or bundle(), **fields)  # type: ignore[arg-type]
    return await call(api, "StartRun", request, pb.StartRunResponse)


async def refused(step: object, status: Status) -> Refused:
    with pytest.raises(Refused) as caught:
        await step  # type: ignore[misc]  # a coroutine of any kind
    assert caught.value.status is status
    return caught.value


async def test_a_run_is_made_of_a_bundle(
    api: Api, state: MemoryMessages, mock_clock: MockClock
) -> None:
    overrides = {"rounds": pb.Scalar(sint64_value=5)}
    started = await start(api, override_config=overrides, federation=FEDERATION)
    run = await state.run(started.run_id)
    assert run is not None
    assert (run.fab_id, run.fab_version, run.override_config) == ("me/app", "1.2.3", {"rounds": 5})
    assert (started.series_id, started.federation) == (run.series_id, FEDERATION)
    claim = await state.claim_run()
    assert claim is not None
    assert claim.run.run_id == run.run_id


@pytest.mark.parametrize(
    ("fab", "fields", "words"),
    [
        (pb.Fab(content=b"no zip"), {}, "cannot be read"),
        (bundle("[project"), {}, "is no TOML"),
        (bundle("[project]\nname = 'app'"), {}, "tool.flwr.app.publisher"),
        (bundle(data=bytes(11 * 1024 * 1024)), {}, "leave data out"),
        (bundle(), {"override_config": {"lr": pb.Scalar(double_value=1)}}, "has no lr"),
        (bundle(), {"app_spec": "@me/app"}, "Hub"),
        (bundle(), {"user_prompt": "hello"}, "agents"),
        (bundle(), {"connector_refs": ["x"]}, "agents"),
    ],
)
async def test_what_no_run_can_be_made_of(
    api: Api,
    state: MemoryMessages,
    fab: pb.Fab,
    fields: dict[str, object],
    words: str,
    mock_clock: MockClock,
) -> None:
    refusal = await refused(start(api, fab, **fields), Status.FAILED_PRECONDITION)
    assert words in refusal.message
    assert refusal.code
    assert not await state.runs(10)


async def test_there_is_one_federation(api: Api, mock_clock: MockClock) -> None:
    listed = await call(
        api, "ListFederations", pb.ListFederationsRequest(), pb.ListFederationsResponse
    )
    assert [federation.name for federation in listed.federations] == [FEDERATION]
    assert (await start(api, federation="default")).federation == FEDERATION
    refusal = await refused(start(api, federation="@me/other"), Status.NOT_FOUND)
    assert "'@me/other'" in refusal.message
    await start(api)
    shown = await call(api, "ShowFederation", pb.ShowFederationRequest(), pb.ShowFederationResponse)
    assert len(shown.federation.runs) == 2


@pytest.fixture
def simulating(state: MemoryMessages) -> Api:
    simulation = pb.SimulationConfig(num_supernodes=2, backend="ray")
    return control_api(state, check_key, simulation)


async def test_a_run_is_simulated_as_the_federation_says_and_as_it_asks_itself(
    simulating: Api, state: MemoryMessages, mock_clock: MockClock
) -> None:
    configure = pb.ConfigureSimulationFederationRequest(
        config=pb.SimulationConfig(client_resources_num_cpus=1)
    )
    response = pb.ConfigureSimulationFederationResponse
    await call(simulating, "ConfigureSimulationFederation", configure, response)
    asked = pb.SimulationConfig(num_supernodes=7)
    for changes, nodes in ((None, 2), (asked, 7)):
        started = await start(simulating, override_federation_config=changes)
        run = await state.run(started.run_id)
        assert run is not None
        assert run.task_type == "flwr-simulation"
        assert run.simulation == pb.SimulationConfig(
            num_supernodes=nodes, backend="ray", client_resources_num_cpus=1
        )
    shown = await call(
        simulating, "ShowFederation", pb.ShowFederationRequest(), pb.ShowFederationResponse
    )
    assert shown.federation.simulation
    assert shown.federation.config.num_supernodes == 2


async def test_a_simulation_without_nodes_is_none(
    simulating: Api, state: MemoryMessages, mock_clock: MockClock
) -> None:
    none = pb.SimulationConfig(num_supernodes=0)
    configure = pb.ConfigureSimulationFederationRequest(config=none)
    response = pb.ConfigureSimulationFederationResponse
    for step in (
        start(simulating, override_federation_config=none),
        call(simulating, "ConfigureSimulationFederation", configure, response),
    ):
        assert "num-supernodes is 0" in (await refused(step, Status.FAILED_PRECONDITION)).message
    assert not await state.runs(10)


async def test_where_runs_are_not_simulated_nobody_configures_it(
    api: Api, state: MemoryMessages, mock_clock: MockClock
) -> None:
    asked = pb.SimulationConfig(num_supernodes=7)
    run = await state.run((await start(api, override_federation_config=asked)).run_id)
    assert run is not None
    assert (run.task_type, run.simulation) == ("flwr-serverapp", None)
    configure = pb.ConfigureSimulationFederationRequest(config=asked)
    response = pb.ConfigureSimulationFederationResponse
    step = call(api, "ConfigureSimulationFederation", configure, response)
    assert "--simulation" in (await refused(step, Status.NOT_FOUND)).message


async def test_runs_are_listed_and_stopped(
    api: Api, state: MemoryMessages, mock_clock: MockClock
) -> None:
    ids = [(await start(api)).run_id for _ in range(3)]
    listed = await call(api, "ListRuns", pb.ListRunsRequest(limit=2), pb.ListRunsResponse)
    assert set(listed.run_dict) == set(ids[1:])
    one = await call(api, "ListRuns", pb.ListRunsRequest(run_id=ids[0]), pb.ListRunsResponse)
    assert one.run_dict[ids[0]].status.status == "pending"
    stop = pb.StopRunRequest(run_id=ids[0])
    assert (await call(api, "StopRun", stop, pb.StopRunResponse)).success
    run = await state.run(ids[0])
    assert run is not None
    assert run.outcome is Outcome.STOPPED
    again = await refused(
        call(api, "StopRun", stop, pb.StopRunResponse), Status.FAILED_PRECONDITION
    )
    assert "over already" in again.message
    unknown = pb.StopRunRequest(run_id=777)
    await refused(call(api, "StopRun", unknown, pb.StopRunResponse), Status.NOT_FOUND)


async def test_nodes_are_registered_listed_and_unregistered(
    api: Api, state: MemoryMessages, mock_clock: MockClock
) -> None:
    register = pb.RegisterNodeRequest(public_key=Signer().public, name="ward 7")
    node_id = (await call(api, "RegisterNode", register, pb.RegisterNodeResponse)).node_id
    again = await refused(
        call(api, "RegisterNode", register, pb.RegisterNodeResponse), Status.FAILED_PRECONDITION
    )
    assert "has a node already" in again.message
    listed = await call(api, "ListNodes", pb.ListNodesRequest(), pb.ListNodesResponse)
    assert [(node.node_id, node.status, node.name) for node in listed.nodes_info] == [
        (node_id, "registered", "ward 7")
    ]
    unregister = pb.UnregisterNodeRequest(node_id=node_id)
    await call(api, "UnregisterNode", unregister, pb.UnregisterNodeResponse)
    step = call(api, "UnregisterNode", unregister, pb.UnregisterNodeResponse)
    await refused(step, Status.NOT_FOUND)
    junk = pb.RegisterNodeRequest(public_key=b"junk")
    register_junk = call(api, "RegisterNode", junk, pb.RegisterNodeResponse)
    assert "no PEM" in (await refused(register_junk, Status.FAILED_PRECONDITION)).message


async def test_nobody_has_to_log_in(api: Api, mock_clock: MockClock) -> None:
    details = await call(
        api, "GetLoginDetails", pb.GetLoginDetailsRequest(), pb.GetLoginDetailsResponse
    )
    assert details.authn_type == "noop"


@attrs.define
class Reader:
    """Somebody who follows a log."""

    request: pb.StreamLogsRequest
    responses: list[pb.StreamLogsResponse] = attrs.field(factory=list)

    async def receive(self) -> bytes:
        return self.request.SerializeToString()

    async def send(self, message: bytes) -> None:
        self.responses.append(pb.StreamLogsResponse.FromString(message))

    @property
    def text(self) -> str:
        return "".join(response.log_output for response in self.responses)


async def test_a_log_is_followed_to_the_end_of_its_run(
    api: Api, state: MemoryMessages, mock_clock: MockClock
) -> None:
    run_id = (await start(api)).run_id
    await state.log(run_id, "one\n")
    reader = Reader(pb.StreamLogsRequest(run_id=run_id))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.streaming["StreamLogs"], reader, CALLER)
            await wait_all_tasks_blocked()
            assert reader.text == "one\n"
            await state.log(run_id, "two\n")
            await wait_all_tasks_blocked()
            assert reader.text == "one\ntwo\n"
            await state.log(run_id, "three\n")
            await state.finish_run(run_id, Outcome.COMPLETED)
    assert reader.text == "one\ntwo\nthree\n"
    late = Reader(
        pb.StreamLogsRequest(run_id=run_id, after_timestamp=reader.responses[0].latest_timestamp)
    )
    await api.streaming["StreamLogs"](late, CALLER)
    assert late.text == "two\nthree\n"


async def test_a_stop_of_the_server_breaks_off_a_log_whose_run_is_not_over(
    api: Api, mock_clock: MockClock
) -> None:
    reader = Reader(pb.StreamLogsRequest(run_id=(await start(api)).run_id))

    async def follow() -> None:
        await refused(api.streaming["StreamLogs"](reader, CALLER), Status.UNAVAILABLE)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await wait_all_tasks_blocked()
            api.holds.release()


async def test_the_log_of_an_unknown_run(api: Api, mock_clock: MockClock) -> None:
    reader = Reader(pb.StreamLogsRequest(run_id=777))
    await refused(api.streaming["StreamLogs"](reader, CALLER), Status.NOT_FOUND)


async def test_a_reader_that_says_nothing(api: Api, mock_clock: MockClock) -> None:
    class Silent(Reader):
        async def receive(self) -> bytes:
            raise ClientGone

    with pytest.raises(ClientGone):
        await api.streaming["StreamLogs"](Silent(pb.StreamLogsRequest()), CALLER)
