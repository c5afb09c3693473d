"""What is done about programs that ask for runs, to start their processes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import trio
from peering.parcels import parcel
from signing import SuperExecSigner
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.config import Address
from superlink_trio.credentials import SharedSecret
from superlink_trio.rpc import Api, Caller, Refused, Status
from superlink_trio.runtime import NoSuperExecs, Signatures, SuperExecs, TakenRuns, runtime_api
from superlink_trio.state.messages import SERVER, MemoryMessages, NewRun, NotFound
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import Outcome, RunRecord, RunStatus
from superlink_trio.wire.runs import Fab

BEGAN = 1_800_000_000.0
HOLD = 20.0
REQUEST = pb.AcquireTaskRequest(supported_task_types=["flwr-clientapp", "flwr-serverapp"])
RAW = REQUEST.SerializeToString()
CALLER = Caller("192.0.2.7:4711")


@pytest.fixture
def state() -> MemoryMessages:
    return MemoryMessages(clock=lambda: BEGAN + trio.current_time())


def api_for(state: MemoryMessages, signatures: Signatures | None = None) -> Api:
    superexecs = SuperExecs(state=state, hold=lambda: HOLD, signatures=signatures)
    return runtime_api(state, hold=lambda: 0.0, superexecs=superexecs)


@pytest.fixture
def api(state: MemoryMessages) -> Api:
    return api_for(state)


async def a_run(state: MemoryMessages, simulation: pb.SimulationConfig | None = None) -> RunRecord:
    fab = Fab(hash=hashlib.sha256(b"fab").hexdigest(), content=b"fab")
    run = NewRun(fab=fab, fab_id="me/app", fab_version="1", simulation=simulation)
    return await state.create_run(run)


async def acquire(api: Api, raw: bytes = RAW, caller: Caller = CALLER) -> pb.AcquireTaskResponse:
    async with api.leased["AcquireTask"](raw, caller) as answer:
        return pb.AcquireTaskResponse.FromString(answer)


async def test_a_run_that_waits_is_given_away(
    api: Api, state: MemoryMessages, autojump_clock: MockClock
) -> None:
    run = await a_run(state)
    given = await acquire(api)
    assert (given.task.task_id, given.task.run_id) == (run.task_id, run.run_id)
    assert (given.task.type, given.task.status.status) == ("flwr-serverapp", "starting")
    assert given.task.fab_hash == run.fab_hash
    assert trio.current_time() == 0
    begun = await state.begin_run(given.token)
    assert (begun.run_id, begun.status) == (run.run_id, RunStatus.RUNNING)


async def test_a_call_is_held_until_a_run_waits(
    api: Api, state: MemoryMessages, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            await trio.sleep(HOLD - 1)
            await a_run(state)

        assert (await acquire(api)).HasField("task")
    assert trio.current_time() == HOLD - 1


async def test_a_call_is_not_held_for_ever(api: Api, autojump_clock: MockClock) -> None:
    assert await acquire(api) == pb.AcquireTaskResponse()
    assert trio.current_time() == HOLD


async def test_who_cannot_start_a_run_is_given_none(
    api: Api, state: MemoryMessages, autojump_clock: MockClock
) -> None:
    await a_run(state)
    for types in ([], ["flwr-agentapp"]):
        raw = pb.AcquireTaskRequest(supported_task_types=types).SerializeToString()
        assert not (await acquire(api, raw)).HasField("task")
    assert trio.current_time() == 0
    assert (await acquire(api)).HasField("task")


async def test_a_run_that_is_simulated_is_given_to_who_can_start_it(
    api: Api, state: MemoryMessages, autojump_clock: MockClock
) -> None:
    run = await a_run(state, pb.SimulationConfig(num_supernodes=3))
    assert not (await acquire(api)).HasField("task")
    raw = pb.AcquireTaskRequest(supported_task_types=["flwr-simulation"]).SerializeToString()
    given = await acquire(api, raw)
    assert (given.task.run_id, given.task.type) == (run.run_id, "flwr-simulation")


async def test_each_run_is_given_to_one(
    api: Api, state: MemoryMessages, autojump_clock: MockClock
) -> None:
    given: list[pb.AcquireTaskResponse] = []

    async def ask() -> None:
        given.append(await acquire(api))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        for _ in range(3):
            await a_run(state)
    runs = [one.task.run_id for one in given if one.HasField("task")]
    assert len(runs) == len(set(runs)) == 3


async def test_a_run_that_did_not_arrive_waits_again(
    api: Api, state: MemoryMessages, autojump_clock: MockClock
) -> None:
    run = await a_run(state)
    lease = api.leased["AcquireTask"](RAW, CALLER)
    first = pb.AcquireTaskResponse.FromString(await lease.__aenter__())
    gone = ConnectionResetError()
    assert not await lease.__aexit__(type(gone), gone, None)
    second = await acquire(api)
    assert second.task.run_id == run.run_id
    with pytest.raises(NotFound):
        await state.begin_run(first.token)
    await state.begin_run(second.token)


async def test_who_goes_away_while_it_waits_takes_nothing_along(
    api: Api, state: MemoryMessages, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(acquire, api)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await a_run(state)
    assert (await acquire(api)).HasField("task")


async def test_a_run_that_is_not_begun_is_given_to_another(
    api: Api,
    state: MemoryMessages,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
) -> None:
    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        await state.serve(stopping=trio.Event(), task_status=task_status)

    await nursery.start(serve)
    run = await a_run(state)
    first = await acquire(api)
    await trio.sleep(25)
    second = await acquire(api)
    assert 30 <= trio.current_time() <= 36
    assert (second.task.run_id, second.token != first.token) == (run.run_id, True)
    assert any("has not begun within 30 s" in line for line in caplog.messages)


async def test_a_stopping_server_answers_at_once(api: Api, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(acquire, api)
        await wait_all_tasks_blocked()
        api.holds.release()
    assert trio.current_time() == 0


async def test_only_the_secret_gives_a_run(
    state: MemoryMessages,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    api = api_for(state, Signatures(SharedSecret(path)))
    await a_run(state)
    for secret in (None, b"other"):
        headers = {} if secret is None else SuperExecSigner(secret).headers(RAW, BEGAN)
        for _ in range(10):
            with pytest.raises(Refused, match="--superexec-auth-secret-file") as caught:
                await acquire(api, caller=Caller("192.0.2.7:4711", headers))
            assert (caught.value.status, caught.value.code) == (Status.UNAUTHENTICATED, 1008)
    assert len(caplog.messages) == 5
    assert caplog.messages[0].startswith(
        "A SuperExec at 192.0.2.7:4711 is refused: its call is not"
    )
    headers = SuperExecSigner(b"secret").headers(RAW, BEGAN)
    assert (await acquire(api, caller=Caller("192.0.2.7:4711", headers))).token


async def test_bytes_that_are_no_request(api: Api, autojump_clock: MockClock) -> None:
    with pytest.raises(Refused) as caught:
        await acquire(api, b"\xff")
    assert caught.value.status is Status.INVALID_ARGUMENT


async def test_nothing_is_given_away_where_runs_are_started_here(
    state: MemoryMessages, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    await a_run(state)
    api = runtime_api(state, hold=lambda: 0.0, superexecs=NoSuperExecs())
    for _ in range(10):
        with pytest.raises(Refused, match="--isolation process") as caught:
            await acquire(api)
        assert caught.value.status is Status.FAILED_PRECONDITION
    assert len(caplog.messages) == 5
    assert await state.claim_run() is not None


async def wait_for_replies(
    state: MemoryMessages, begun: pb.AcquireTaskResponse, heard: list[Status]
) -> None:
    await state.register_node(b"key")
    node_id = await state.activate_node(b"key", 30.0)
    asked = parcel(begun.task.run_id, to=node_id).envelope
    await state.push(begun.task.run_id, SERVER, [asked])
    raw = pb.PullAppMessagesRequest(message_ids=[asked.message_id]).SerializeToString()
    waiting = runtime_api(state, hold=lambda: HOLD, superexecs=NoSuperExecs())
    caller = Caller(metadata={"flwr-task-token": begun.token})
    with pytest.raises(Refused) as caught:
        async with waiting.leased["PullMessages"](raw, caller):
            pass
    heard.append(caught.value.status)


async def test_a_stop_ends_what_superexecs_have_and_keeps_what_waits(
    state: MemoryMessages, api: Api, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stopping = trio.Event()
    service = TakenRuns(state=state, address=lambda: Address("127.0.0.1", 8000))

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        await service(stopping=stopping, task_status=task_status)

    await nursery.start(serve)
    running, starting, waiting = [await a_run(state) for _ in range(3)]
    begun = await acquire(api)
    await state.begin_run(begun.token)
    await acquire(api)
    heard: list[Status] = []
    nursery.start_soon(wait_for_replies, state, begun, heard)
    await wait_all_tasks_blocked()
    stopping.set()
    await wait_all_tasks_blocked()
    for run in (running, starting):
        ended = await state.run(run.run_id)
        assert ended is not None
        assert (ended.outcome, ended.details) == (Outcome.FAILED, "the SuperLink was stopped")
    kept = await state.run(waiting.run_id)
    assert kept is not None
    assert kept.status is RunStatus.PENDING
    # Its process hears of it where it waits, and else with its next call.
    assert heard == [Status.UNAUTHENTICATED]
    with pytest.raises(Refused) as caught:
        await api.unary["GetNodes"](b"", Caller(metadata={"flwr-task-token": begun.token}))
    assert caught.value.status is Status.UNAUTHENTICATED
