"""What callers hear while the state is not available."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from builders import pb_node, pb_task_ins
from stores import serving, settle
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.driver import driver_api
from superlink_trio.fleet import adapter_api, fleet_api
from superlink_trio.rounds import Rounds
from superlink_trio.rpc import Api, Caller, Refused, Status
from superlink_trio.state import SqliteState
from superlink_trio.wire import superlink_pb2 as pb

LIMIT = 1 << 29


@pytest.fixture
def closed(tmp_path: Path) -> SqliteState:
    """A store that was never opened."""
    return SqliteState(str(tmp_path / "secret.db"))


@pytest.fixture
def driver(closed: SqliteState) -> Api:
    return driver_api(closed, hold=lambda: 0, message_limit=LIMIT, rounds=Rounds())


@pytest.fixture
def fleet(closed: SqliteState) -> Api:
    return fleet_api(closed, hold=lambda: 0, readmit=True, message_limit=LIMIT)


async def refusal_of_leased(api: Api, name: str, request: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        async with api.leased[name](request, Caller()):
            pass
    return caught.value


async def test_a_call_may_be_tried_again_later(
    driver: Api, fleet: Api, autojump_clock: MockClock
) -> None:
    create_node = pb.CreateNodeRequest(ping_interval=30.0).SerializeToString()
    push = pb.PushTaskInsRequest(task_ins_list=[pb_task_ins(1, 2)]).SerializeToString()
    for call, request in (
        (fleet.unary["CreateNode"], create_node),
        (driver.unary["PushTaskIns"], push),
    ):
        with pytest.raises(Refused) as caught:
            await call(request, Caller())
        assert caught.value.status is Status.UNAVAILABLE
        assert "secret" not in caught.value.message, "paths are for the log"


async def test_a_pull_too(driver: Api, fleet: Api, autojump_clock: MockClock) -> None:
    pull_ins = pb.PullTaskInsRequest(node=pb_node(7)).SerializeToString()
    pull_res = pb.PullTaskResRequest(
        task_ids=["6c7a4a36-8e22-4f0f-a4d1-1a2f1e3f4b5c"]
    ).SerializeToString()
    container = pb.MessageContainer(
        grpc_message_name="PullTaskInsRequest", grpc_message_content=pull_ins
    ).SerializeToString()
    for api, name, request in (
        (fleet, "PullTaskIns", pull_ins),
        (driver, "PullTaskRes", pull_res),
        (adapter_api(fleet), "SendReceive", container),
    ):
        refusal = await refusal_of_leased(api, name, request)
        assert refusal.status is Status.UNAVAILABLE


async def test_a_driver_waits_for_the_end_of_an_outage(
    closed: SqliteState, driver: Api, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    runs: list[bytes] = []

    async def create_run() -> None:
        runs.append(await driver.unary["CreateRun"](b"", Caller()))

    nursery.start_soon(create_run)
    await wait_all_tasks_blocked()
    async with serving(closed):
        mock_clock.jump(1)
        await settle(closed)
        run_id = pb.CreateRunResponse.FromString(runs.pop()).run_id
        assert await closed.get_run(run_id) is not None


async def test_a_driver_does_not_keep_a_server_that_stops(
    driver: Api, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    codes: list[Status] = []

    async def pull() -> None:
        refusal = await refusal_of_leased(driver, "PullTaskRes", b"")
        codes.append(refusal.status)

    start = trio.current_time()
    nursery.start_soon(pull)
    await wait_all_tasks_blocked()
    driver.holds.release()
    await wait_all_tasks_blocked()
    assert codes == [Status.UNAVAILABLE]
    assert trio.current_time() == start
