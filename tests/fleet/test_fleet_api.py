from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import trio
from builders import EPOCH, pb_node, pb_task_res, task_ins
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.fleet import adapter_api, fleet_api
from superlink_trio.rpc import Api, Caller, Refused, Status
from superlink_trio.state import MemoryState, StateLimits
from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError

LIMIT = 1024 * 1024
CALLER = Caller("127.0.0.1:1")


@pytest.fixture
async def state() -> MemoryState:
    start = trio.current_time()
    return MemoryState(clock=lambda: EPOCH + trio.current_time() - start)


@pytest.fixture
def api(state: MemoryState) -> Api:
    return fleet_api(state, hold=lambda: 20.0, readmit=True, message_limit=LIMIT)


async def create_node(api: Api, ping_interval: float = 30.0) -> int:
    request = pb.CreateNodeRequest(ping_interval=ping_interval).SerializeToString()
    raw = await api.unary["CreateNode"](request, CALLER)
    return pb.CreateNodeResponse.FromString(raw).node.node_id


async def delete_node(api: Api, node: pb.Node) -> None:
    request = pb.DeleteNodeRequest(node=node).SerializeToString()
    assert await api.unary["DeleteNode"](request, CALLER) == b""


async def ping(api: Api, node: pb.Node, interval: float = 30.0) -> bool:
    request = pb.PingRequest(node=node, ping_interval=interval).SerializeToString()
    return pb.PingResponse.FromString(await api.unary["Ping"](request, CALLER)).success


async def pull(api: Api, node: pb.Node, caller: Caller = CALLER) -> list[pb.TaskIns]:
    request = pb.PullTaskInsRequest(node=node).SerializeToString()
    async with api.leased["PullTaskIns"](request, caller) as raw:
        return list(pb.PullTaskInsResponse.FromString(raw).task_ins_list)


async def push(api: Api, *items: pb.TaskRes) -> dict[str, int]:
    request = pb.PushTaskResRequest(task_res_list=items).SerializeToString()
    raw = await api.unary["PushTaskRes"](request, CALLER)
    response = pb.PushTaskResResponse.FromString(raw)
    assert response.reconnect.reconnect == 5
    return dict(response.results)


async def store(state: MemoryState, node_id: int, **changes: Any) -> Task:
    task = task_ins(await state.create_run(Run()), node_id, **changes)
    await state.store_task_ins([task])
    return task


async def collect(state: MemoryState, task: Task) -> list[Task]:
    return list(await state.take_task_res([task.task_id], LIMIT))


async def test_a_task_goes_out_and_its_answer_comes_in(api: Api, state: MemoryState) -> None:
    node_id = await create_node(api)
    task = await store(state, node_id)
    (item,) = await pull(api, pb_node(node_id))
    assert (item.task_id, item.run_id, item.group_id) == (task.task_id, task.run_id, task.group_id)
    assert item.task.recordset == b"weights"
    assert item.task.consumer == pb_node(node_id)
    assert item.task.producer == pb_node(ANONYMOUS)
    assert item.task.delivered_at.startswith("2027-01-15T")
    results = await push(api, pb_task_res(item))
    (answer,) = await collect(state, task)
    assert results == {answer.task_id: 0}
    assert answer.content == b"result"
    assert answer.pushed_at == pytest.approx(EPOCH, abs=1)


async def test_a_node_leaves_for_good(api: Api) -> None:
    node = pb_node(await create_node(api))
    assert await ping(api, node) is True
    await delete_node(api, node)
    await delete_node(api, node)
    assert await ping(api, node) is False
    assert await pull(api, node) == []


async def test_deleting_nobody_in_particular_does_nothing(api: Api) -> None:
    node_id = await create_node(api)
    await delete_node(api, pb.Node(node_id=node_id, anonymous=True))
    await delete_node(api, pb_node(ANONYMOUS))
    await delete_node(api, pb.Node())
    assert await ping(api, pb_node(node_id)) is True


async def test_a_node_of_before_a_restart_comes_back(api: Api, state: MemoryState) -> None:
    assert await ping(api, pb_node(-5)) is True
    run_id = await state.create_run(Run())
    assert list(await state.online_nodes(run_id)) == [-5]


async def test_a_pull_readmits_too(api: Api, state: MemoryState, autojump_clock: MockClock) -> None:
    run_id = await state.create_run(Run())
    assert await pull(api, pb_node(5)) == []
    assert list(await state.online_nodes(run_id)) == [5]


async def test_readmission_can_be_turned_off(state: MemoryState, mock_clock: MockClock) -> None:
    api = fleet_api(state, hold=lambda: 20.0, readmit=False, message_limit=LIMIT)
    assert await ping(api, pb_node(-5)) is False
    assert await pull(api, pb_node(-5)) == []


async def test_anonymous_nodes_are_served_but_not_pinged(api: Api, state: MemoryState) -> None:
    assert await ping(api, pb_node(ANONYMOUS)) is False
    task = await store(state, ANONYMOUS)
    (item,) = await pull(api, pb_node(ANONYMOUS))
    assert item.task_id == task.task_id
    (task_id,) = await push(api, pb_task_res(item))
    assert task_id != "None"


@pytest.mark.parametrize("node", [pb.Node(), pb.Node(node_id=3, anonymous=True)])
async def test_a_pull_of_nobody_is_refused(api: Api, node: pb.Node) -> None:
    with pytest.raises(Refused) as refused:
        await pull(api, node)
    assert refused.value.status is Status.INVALID_ARGUMENT


@pytest.mark.parametrize("interval", [-1.0, math.nan, math.inf])
async def test_a_ping_interval_that_is_none_is_refused(api: Api, interval: float) -> None:
    with pytest.raises(Refused, match="ping_interval"):
        await create_node(api, interval)
    with pytest.raises(Refused, match="ping_interval"):
        await ping(api, pb_node(1), interval)


async def test_no_node_is_online_for_ever(
    api: Api, state: MemoryState, mock_clock: MockClock
) -> None:
    node_id, run_id = await create_node(api, 1e300), await state.create_run(Run())
    assert await ping(api, pb_node(node_id), 1e300)
    mock_clock.jump(3599)
    assert list(await state.online_nodes(run_id)) == [node_id]
    mock_clock.jump(2)
    assert list(await state.online_nodes(run_id)) == []


async def test_a_pull_is_held_until_a_task_arrives(
    api: Api, state: MemoryState, mock_clock: MockClock
) -> None:
    node_id = await create_node(api)
    pulled: list[pb.TaskIns] = []

    async def node() -> None:
        pulled.extend(await pull(api, pb_node(node_id)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(node)
        await wait_all_tasks_blocked()
        assert not pulled
        await store(state, node_id)
    assert len(pulled) == 1


async def test_a_held_pull_keeps_its_node_online(
    state: MemoryState, autojump_clock: MockClock
) -> None:
    api = fleet_api(state, hold=lambda: 100.0, readmit=True, message_limit=LIMIT)
    node_id = await create_node(api)
    run_id = await state.create_run(Run())
    before = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pull, api, pb_node(node_id))
        await trio.sleep(99)
        assert list(await state.online_nodes(run_id)) == [node_id]
    assert trio.current_time() - before == pytest.approx(100)
    await trio.sleep(29)
    assert list(await state.online_nodes(run_id)) == [node_id]
    await trio.sleep(2)
    assert list(await state.online_nodes(run_id)) == []


async def held_for(api: Api, node_id: int) -> float:
    before = trio.current_time()
    assert await pull(api, pb_node(node_id)) == []
    return trio.current_time() - before


async def break_off(api: Api, node_id: int) -> None:
    """Pull over a connection that breaks after a second."""
    with trio.move_on_after(1) as connection:
        await pull(api, pb_node(node_id))
    assert connection.cancelled_caught


async def test_a_node_of_before_a_restart_is_answered_at_once_and_held_then(
    api: Api, autojump_clock: MockClock
) -> None:
    assert await ping(api, pb_node(5)) is True
    assert [await held_for(api, 5) for _ in range(3)] == [0, 20, 20]


async def test_a_node_whose_pull_broke_is_answered_at_once_and_held_then(
    api: Api, autojump_clock: MockClock
) -> None:
    node_id = await create_node(api)
    await break_off(api, node_id)
    assert await ping(api, pb_node(node_id)) is True
    assert [await held_for(api, node_id) for _ in range(2)] == [0, 20]


async def test_a_node_whose_pull_broke_is_held_once_its_answer_was_taken(
    api: Api, state: MemoryState, autojump_clock: MockClock
) -> None:
    node_id = await create_node(api)
    await store(state, node_id)
    (item,) = await pull(api, pb_node(node_id))
    await break_off(api, node_id)
    await push(api, pb_task_res(item))
    assert await held_for(api, node_id) == 20


async def test_a_node_whose_pull_broke_is_offline_soon(
    api: Api, state: MemoryState, autojump_clock: MockClock
) -> None:
    node_id, run_id = await create_node(api), await state.create_run(Run())
    await break_off(api, node_id)
    assert list(await state.online_nodes(run_id)) == [node_id]
    await trio.sleep(6)
    assert list(await state.online_nodes(run_id)) == []
    await pull(api, pb_node(node_id))
    assert list(await state.online_nodes(run_id)) == [node_id]


async def test_a_task_goes_to_a_nodes_newest_pull(
    api: Api, state: MemoryState, autojump_clock: MockClock
) -> None:
    node_id = await create_node(api)
    dead, reconnected = Caller("ipv4:127.0.0.1:1"), Caller("ipv4:127.0.0.1:2")
    ended, before = trio.Event(), trio.current_time()

    async def never_read() -> None:
        assert await pull(api, pb_node(node_id), dead) == []
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(never_read)
        await wait_all_tasks_blocked()
        # Nobody knows whether it was told of an error: it is not held.
        assert await pull(api, pb_node(node_id), reconnected) == []
        await ended.wait()
        assert trio.current_time() == before
    task = await store(state, node_id)
    (item,) = await pull(api, pb_node(node_id), reconnected)
    assert item.task_id == task.task_id


async def test_anonymous_nodes_are_all_held(api: Api, mock_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(pull, api, pb_node(ANONYMOUS))
        await wait_all_tasks_blocked()
        assert len(api.holds) == 3
        api.holds.release()


async def test_nobody_is_waited_for_where_no_node_is(api: Api, autojump_clock: MockClock) -> None:
    await delete_node(api, pb_node(await create_node(api)))
    await create_node(api)
    await trio.sleep(31)
    before = trio.current_time()
    await api.drain()
    assert trio.current_time() == before


async def test_nodes_that_stop_too_have_time_to_sign_off(
    api: Api, autojump_clock: MockClock
) -> None:
    nodes = [await create_node(api) for _ in range(4)]
    before = trio.current_time()

    async def sign_off() -> None:
        for node_id in nodes[1:]:
            await trio.sleep(0.2)
            await delete_node(api, pb_node(node_id))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sign_off)
        await api.drain()
    # The one that stays says nothing.
    assert trio.current_time() - before == pytest.approx(0.6 + 0.4)


async def test_the_last_node_that_signs_off_ends_the_wait(
    api: Api, autojump_clock: MockClock
) -> None:
    node_id = await create_node(api)
    before = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(api.drain)
        await wait_all_tasks_blocked()
        await delete_node(api, pb_node(node_id))
    assert trio.current_time() == before


async def test_deleting_a_node_ends_its_held_pull(api: Api, mock_clock: MockClock) -> None:
    node_id = await create_node(api)

    async def node() -> None:
        assert await pull(api, pb_node(node_id)) == []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(node)
        await wait_all_tasks_blocked()
        await delete_node(api, pb_node(node_id))


async def test_held_pulls_are_released_when_the_api_stops(api: Api, mock_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(pull, api, pb_node(await create_node(api)))
        await wait_all_tasks_blocked()
        assert len(api.holds) == 10
        api.holds.release()
    assert len(api.holds) == 0


async def test_a_task_that_was_not_handed_over_waits_for_its_node(
    api: Api, state: MemoryState
) -> None:
    node_id = await create_node(api)
    task = await store(state, node_id)
    request = pb.PullTaskInsRequest(node=pb_node(node_id)).SerializeToString()
    with pytest.raises(BrokenPipeError):
        async with api.leased["PullTaskIns"](request, CALLER):
            raise BrokenPipeError
    (item,) = await pull(api, pb_node(node_id))
    assert item.task_id == task.task_id


async def test_another_connection_is_given_what_the_first_one_lost(
    api: Api, state: MemoryState, autojump_clock: MockClock
) -> None:
    node_id = await create_node(api)
    task = await store(state, node_id)
    assert len(await pull(api, pb_node(node_id))) == 1
    assert await pull(api, pb_node(node_id)) == []
    (item,) = await pull(api, pb_node(node_id), Caller("127.0.0.1:2"))
    assert item.task_id == task.task_id


@pytest.mark.parametrize("header", ["forwarded", "via", "x-forwarded-for"])
async def test_what_a_proxy_lost_is_given_again_whatever_its_connection(
    header: str, api: Api, state: MemoryState
) -> None:
    proxied = Caller("127.0.0.1:1", {header: "somebody"})
    node_id = await create_node(api)
    task = await store(state, node_id)
    for _ in range(2):
        (item,) = await pull(api, pb_node(node_id), proxied)
        assert item.task_id == task.task_id


async def test_a_straggler_is_told_no_and_goes_on(
    api: Api, state: MemoryState, mock_clock: MockClock
) -> None:
    node_id = await create_node(api)
    task = await store(state, node_id, ttl=5.0)
    (item,) = await pull(api, pb_node(node_id))
    mock_clock.jump(6)
    assert await push(api, pb_task_res(item, ttl=-1.0)) == {"None": 0}
    (answer,) = await collect(state, task)
    assert isinstance(answer.content, TaskError)
    await store(state, node_id)
    assert len(await pull(api, pb_node(node_id))) == 1


async def test_an_invalid_answer_becomes_an_error_for_the_driver(
    api: Api, state: MemoryState
) -> None:
    node_id = await create_node(api)
    task = await store(state, node_id)
    (item,) = await pull(api, pb_node(node_id))
    assert await push(api, pb_task_res(item, ttl=-1.0, error=pb.Error(code=1))) == {"None": 0}
    (answer,) = await collect(state, task)
    assert answer.content == TaskError(
        0,
        "The node's answer was not valid: ttl must be a number of seconds above 0, "
        "exactly one of recordset and error must be set",
    )


async def test_an_answer_without_a_sender_becomes_an_error_too(
    api: Api, state: MemoryState
) -> None:
    node_id = await create_node(api)
    task = await store(state, node_id)
    (item,) = await pull(api, pb_node(node_id))
    answer = pb_task_res(item)
    answer.task.ClearField("producer")
    assert await push(api, answer) == {"None": 0}
    assert len(await collect(state, task)) == 1


async def test_an_invalid_answer_to_nothing_is_acknowledged(api: Api) -> None:
    assert await push(api, pb.TaskRes()) == {"None": 0}


async def test_a_flood_of_answers_that_are_not_taken_is_a_few_log_lines(
    api: Api, state: MemoryState, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    broken = [pb.TaskRes(task=pb.Task(producer=pb_node(number))) for number in range(1, 200)]
    asked = pb.TaskIns(task_id="x" * 100_000, run_id=await state.create_run(Run()))
    asked.task.consumer.CopyFrom(pb_node(await create_node(api)))
    useless = [pb_task_res(asked, task_type="train") for _ in range(200)]
    assert await push(api, *broken, *useless) == {"None": 0}
    assert await push(api, *useless, *broken) == {"None": 0}
    lines = [line for line in caplog.messages if "not taken" in line]
    assert len(lines) == 5
    assert max(map(len, lines)) < 1100


async def test_a_host_whose_nodes_come_and_go_all_the_time_is_not_told_of_for_ever(
    api: Api, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(1000):
        await delete_node(api, pb_node(await create_node(api)))
    assert len(caplog.messages) == 1000


async def test_an_answer_that_no_driver_could_receive_becomes_an_error(
    api: Api, state: MemoryState
) -> None:
    node_id = await create_node(api)
    task = await store(state, node_id)
    (item,) = await pull(api, pb_node(node_id))
    assert await push(api, pb_task_res(item, recordset=bytes(LIMIT))) == {"None": 0}
    (answer,) = await collect(state, task)
    assert isinstance(answer.content, TaskError)
    assert "too large" in answer.content.reason


async def test_a_repeated_answer_is_acknowledged_with_the_first_id(
    api: Api, state: MemoryState
) -> None:
    node_id = await create_node(api)
    await store(state, node_id)
    (item,) = await pull(api, pb_node(node_id))
    first = await push(api, pb_task_res(item))
    assert await push(api, pb_task_res(item)) == first


async def test_another_nodes_answer_is_not_taken(
    api: Api, state: MemoryState, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node_id, other = await create_node(api), await create_node(api)
    task = await store(state, node_id)
    (item,) = await pull(api, pb_node(node_id))
    item.task.consumer.CopyFrom(pb_node(other))
    assert await push(api, pb_task_res(item)) == {"None": 0}
    assert await push(api, pb_task_res(item, ttl=-1.0)) == {"None": 0}
    assert await collect(state, task) == []
    assert f"was not for node {other}" in caplog.text


async def test_runs_and_bundles_are_looked_up_and_the_unknown_is_no_error(
    api: Api, state: MemoryState
) -> None:
    run_id = await state.create_run(Run(fab_hash="h"), Fab(hash="h", content=b"c"))

    async def ask(method: str, request: pb.GetRunRequest | pb.GetFabRequest) -> bytes:
        return await api.unary[method](request.SerializeToString(), CALLER)

    raw = await ask("GetRun", pb.GetRunRequest(run_id=run_id))
    assert pb.GetRunResponse.FromString(raw).run.fab_hash == "h"
    raw = await ask("GetFab", pb.GetFabRequest(hash_str="h"))
    assert pb.GetFabResponse.FromString(raw).fab.content == b"c"
    assert await ask("GetRun", pb.GetRunRequest(run_id=run_id + 1)) == b""
    assert await ask("GetFab", pb.GetFabRequest(hash_str="other")) == b""


async def test_junk_is_refused(api: Api) -> None:
    for method, call in api.unary.items():
        with pytest.raises(Refused) as refused:
            await call(b"\x0a\xff", CALLER)
        assert refused.value.status is Status.INVALID_ARGUMENT
        assert method in refused.value.message


# GrpcAdapter


async def adapt(api: Api, name: str, content: bytes) -> pb.MessageContainer:
    container = pb.MessageContainer(
        metadata={"flower-version": "1.11.1"}, grpc_message_name=name, grpc_message_content=content
    )
    call = adapter_api(api).leased["SendReceive"]
    async with call(container.SerializeToString(), CALLER) as raw:
        return pb.MessageContainer.FromString(raw)


async def test_the_adapter_unpacks_and_packs(api: Api, state: MemoryState) -> None:
    node = pb_node(await create_node(api))
    answer = await adapt(api, "PingRequest", pb.PingRequest(node=node).SerializeToString())
    assert answer.grpc_message_name == "PingResponse"
    assert dict(answer.metadata) == {}
    assert pb.PingResponse.FromString(answer.grpc_message_content).success is True
    task = await store(state, node.node_id)
    answer = await adapt(
        api, "PullTaskInsRequest", pb.PullTaskInsRequest(node=node).SerializeToString()
    )
    assert answer.grpc_message_name == "PullTaskInsResponse"
    (item,) = pb.PullTaskInsResponse.FromString(answer.grpc_message_content).task_ins_list
    assert item.task_id == task.task_id


async def test_a_lost_adapter_answer_puts_its_task_back(api: Api, state: MemoryState) -> None:
    node = pb_node(await create_node(api))
    await store(state, node.node_id)
    container = pb.MessageContainer(
        grpc_message_name="PullTaskInsRequest",
        grpc_message_content=pb.PullTaskInsRequest(node=node).SerializeToString(),
    )
    with pytest.raises(BrokenPipeError):
        async with adapter_api(api).leased["SendReceive"](container.SerializeToString(), CALLER):
            raise BrokenPipeError
    assert len(await pull(api, node)) == 1


@pytest.mark.parametrize("name", ["", "Ping", "PingResponse", "NoSuchRequest"])
async def test_the_adapter_refuses_what_is_no_call(api: Api, name: str) -> None:
    with pytest.raises(Refused) as refused:
        await adapt(api, name, b"")
    assert refused.value.status is Status.UNIMPLEMENTED


@pytest.mark.parametrize("raw", [b"\x1a\xff", b"\x0a\x02\x0a\x05", b"\x12\x01\xff"])
async def test_the_adapter_refuses_junk(api: Api, raw: bytes) -> None:
    with pytest.raises(Refused) as refused:
        async with adapter_api(api).leased["SendReceive"](raw, CALLER):
            raise AssertionError("was refused")
    assert refused.value.status is Status.INVALID_ARGUMENT


@pytest.mark.parametrize("call", ["CreateNode", "Ping"])
async def test_a_node_too_many_is_refused_with_what_to_do(
    api: Api, state: MemoryState, call: str
) -> None:
    state.limits = StateLimits(nodes=1)
    node_id = await create_node(api)
    with pytest.raises(Refused, match="--max-nodes allows: try again later") as caught:
        await (create_node(api) if call == "CreateNode" else ping(api, pb_node(7)))
    assert caught.value.status is Status.RESOURCE_EXHAUSTED
    assert await ping(api, pb_node(node_id))
    with pytest.raises(Refused):
        await pull(api, pb_node(7))


@pytest.mark.parametrize("final", [False, True])
async def test_an_answer_that_finds_no_room_is_refused_and_a_driver_told_if_it_never_comes_again(
    state: MemoryState, final: bool
) -> None:
    api = fleet_api(
        state, hold=lambda: 0, readmit=True, message_limit=LIMIT, refusals_are_final=final
    )
    node_id = await create_node(api)
    task = await store(state, node_id)
    [pulled] = await pull(api, pb_node(node_id))
    state.limits = StateLimits(stored_size=100_000)
    with pytest.raises(Refused, match="wait until results are collected") as caught:
        await push(api, pb_task_res(pulled, recordset=bytes(100_000)))
    assert caught.value.status is Status.RESOURCE_EXHAUSTED
    told = [answer.content for answer in await state.take_task_res([task.task_id], LIMIT)]
    if final:
        [error] = told
        assert isinstance(error, TaskError)
        assert error.code == 0
        assert "no room" in error.reason
    else:
        assert told == []
        state.limits = StateLimits(stored_size=1_000_000)
        assert "None" not in await push(api, pb_task_res(pulled, recordset=bytes(100_000)))
