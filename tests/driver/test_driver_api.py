from __future__ import annotations

import hashlib
import logging
import math
import uuid

import pytest
import trio
import trio.lowlevel
from builders import EPOCH, answer_to, is_error, pb_task_ins, task_ins
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.driver import driver_api
from superlink_trio.rounds import Rounds
from superlink_trio.rounds import tasks as following
from superlink_trio.rpc import Api, Caller, Refused, Status
from superlink_trio.state import MemoryState, StateLimits
from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.runs import Run
from superlink_trio.wire.tasks import TaskError

LIMIT = 1024 * 1024
CALLER = Caller("test")


@pytest.fixture
async def state() -> MemoryState:
    start = trio.current_time()
    return MemoryState(clock=lambda: EPOCH + trio.current_time() - start)


@pytest.fixture
async def rounds() -> Rounds:
    return Rounds()


@pytest.fixture
def api(state: MemoryState, rounds: Rounds) -> Api:
    return driver_api(state, hold=lambda: 5.0, message_limit=LIMIT, rounds=rounds)


async def push(api: Api, *items: pb.TaskIns) -> list[str]:
    request = pb.PushTaskInsRequest(task_ins_list=items)
    raw = await api.unary["PushTaskIns"](request.SerializeToString(), CALLER)
    return list(pb.PushTaskInsResponse.FromString(raw).task_ids)


async def pull(api: Api, *task_ids: str) -> list[pb.TaskRes]:
    request = pb.PullTaskResRequest(task_ids=task_ids)
    async with api.leased["PullTaskRes"](request.SerializeToString(), CALLER) as raw:
        return list(pb.PullTaskResResponse.FromString(raw).task_res_list)


async def create_run(api: Api, request: pb.CreateRunRequest | None = None) -> int:
    raw = (request or pb.CreateRunRequest()).SerializeToString()
    return pb.CreateRunResponse.FromString(await api.unary["CreateRun"](raw, CALLER)).run_id


async def test_a_run_is_described_by_get_run(api: Api) -> None:
    content = b"bundle"
    digest = hashlib.sha256(content).hexdigest()
    request = pb.CreateRunRequest(
        fab_id="app", fab_version="1", fab=pb.Fab(hash_str=digest, content=content)
    )
    request.override_config["lr"].double_value = 0.1
    run_id = await create_run(api, request)
    raw = await api.unary["GetRun"](pb.GetRunRequest(run_id=run_id).SerializeToString(), CALLER)
    run = pb.GetRunResponse.FromString(raw).run
    assert (run.run_id, run.fab_id, run.fab_version, run.fab_hash) == (run_id, "app", "1", digest)
    assert run.override_config["lr"].double_value == 0.1
    raw = await api.unary["GetFab"](pb.GetFabRequest(hash_str=digest).SerializeToString(), CALLER)
    assert pb.GetFabResponse.FromString(raw).fab.content == content


async def test_a_bundle_that_does_not_match_its_hash_is_refused(api: Api) -> None:
    with pytest.raises(Refused, match="SHA-256") as refused:
        await create_run(api, pb.CreateRunRequest(fab=pb.Fab(hash_str="abc", content=b"x")))
    assert refused.value.status is Status.INVALID_ARGUMENT


async def test_what_is_not_known_is_not_found(api: Api) -> None:
    for method, request in (
        ("GetRun", pb.GetRunRequest(run_id=1).SerializeToString()),
        ("GetFab", pb.GetFabRequest(hash_str="abc").SerializeToString()),
    ):
        with pytest.raises(Refused) as refused:
            await api.unary[method](request, CALLER)
        assert refused.value.status is Status.NOT_FOUND


async def test_nodes_online_are_listed(api: Api, state: MemoryState) -> None:
    run_id, node_id = await create_run(api), await state.create_node(30.0)
    for asked, expected in ((run_id, [node_id]), (run_id + 1, [])):
        request = pb.GetNodesRequest(run_id=asked).SerializeToString()
        response = pb.GetNodesResponse.FromString(await api.unary["GetNodes"](request, CALLER))
        assert [node.node_id for node in response.nodes] == expected
        assert not any(node.anonymous for node in response.nodes)


async def test_the_server_sets_pushed_at(api: Api, state: MemoryState) -> None:
    run_id, node_id = await create_run(api), await state.create_node(30.0)
    (task_id,) = await push(api, pb_task_ins(run_id, node_id, pushed_at=1.0))
    task = await state.take_task_ins(node_id)
    assert task is not None
    assert task.task_id == task_id
    assert task.pushed_at == pytest.approx(EPOCH, abs=1)


async def test_ids_come_in_the_order_of_the_items(api: Api, state: MemoryState) -> None:
    run_id, node_id = await create_run(api), await state.create_node(30.0)
    ids = await push(
        api, *(pb_task_ins(run, node_id) for run in (run_id, run_id + 1, run_id, run_id))
    )
    assert ids[1] == ""
    assert len(set(ids)) == 4
    taken = [await state.take_task_ins(node_id) for _ in range(4)]
    assert [task.task_id for task in taken if task is not None] == [ids[0], *ids[2:]]


async def test_an_invalid_item_refuses_the_whole_push(api: Api, state: MemoryState) -> None:
    run_id, node_id = await create_run(api), await state.create_node(30.0)
    bad = pb_task_ins(run_id, node_id, ttl=-1.0, ancestry=["x"])
    worse = pb_task_ins(run_id, node_id, created_at=math.nan)
    with pytest.raises(Refused) as refused:
        await push(api, pb_task_ins(run_id, node_id), bad, worse)
    assert refused.value.status is Status.INVALID_ARGUMENT
    assert refused.value.message == (
        "task_ins_list[1]: ttl must be a number of seconds above 0, ancestry must be empty; "
        "task_ins_list[2]: created_at must be Unix seconds, not before 27 March 2024"
    )
    assert await state.take_task_ins(node_id) is None


async def test_a_refusal_names_the_first_items_and_counts_the_rest(
    api: Api, state: MemoryState
) -> None:
    run_id, node_id = await create_run(api), await state.create_node(30.0)
    with pytest.raises(Refused) as refused:
        await push(api, *[pb_task_ins(run_id, node_id, ttl=-1.0)] * 1000)
    assert refused.value.message.endswith("; and 990 more items")
    assert refused.value.message.count("ttl must be") == 10


async def test_an_empty_push_is_refused(api: Api) -> None:
    with pytest.raises(Refused, match="task_ins_list is empty"):
        await push(api)


async def test_a_task_that_no_node_could_receive_is_refused(api: Api, state: MemoryState) -> None:
    run_id, node_id = await create_run(api), await state.create_node(30.0)
    with pytest.raises(Refused, match="too large"):
        await push(api, pb_task_ins(run_id, node_id, recordset=bytes(LIMIT)))


async def test_junk_is_refused(api: Api) -> None:
    for method in ("CreateRun", "PushTaskIns"):
        with pytest.raises(Refused) as refused:
            await api.unary[method](b"\x0a\xff", CALLER)
        assert refused.value.status is Status.INVALID_ARGUMENT
        assert method in refused.value.message


async def test_a_pull_waits_until_every_answer_is_there(
    api: Api, state: MemoryState, mock_clock: MockClock
) -> None:
    run_id, node_id = await create_run(api), await state.create_node(30.0)
    tasks = [task_ins(run_id, node_id) for _ in range(2)]
    await state.store_task_ins(tasks)
    pulled: list[pb.TaskRes] = []

    async def driver() -> None:
        pulled.extend(await pull(api, *(task.task_id for task in tasks)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver)
        for task in tasks:
            await wait_all_tasks_blocked()
            assert not pulled
            await state.store_task_res(answer_to(task))
    assert [item.task.recordset for item in pulled] == [b"result", b"result"]
    assert [list(item.task.ancestry) for item in pulled] == [[task.task_id] for task in tasks]
    assert all(item.task.delivered_at.startswith("2027-01-15T08:00:0") for item in pulled)


async def test_a_pull_is_answered_after_the_hold(
    api: Api, state: MemoryState, autojump_clock: MockClock
) -> None:
    run_id, node_id = await create_run(api), await state.create_node(3000.0)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    before = trio.current_time()
    assert await pull(api, task.task_id) == []
    assert trio.current_time() - before == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("answered_at", "given_at"),
    [
        # None follows the first.
        ([0.0], 0.5),
        ([1.0], 1.5),
        ([1.0, 1.4, 2.1], 1.9),
        # The hold ends before the moment does.
        ([4.8], 5.0),
        # One after the other, without an end.
        ([1.0 + 0.4 * number for number in range(15)], 4.0),
        # All of them.
        ([1.0 + 0.1 * number for number in range(20)], 2.9),
    ],
)
async def test_a_slow_node_does_not_delay_the_answers_of_others(
    answered_at: list[float],
    given_at: float,
    api: Api,
    state: MemoryState,
    autojump_clock: MockClock,
) -> None:
    run_id, node_id = await create_run(api), await state.create_node(3000.0)
    tasks = [task_ins(run_id, node_id) for _ in range(20)]
    await state.store_task_ins(tasks)
    start = trio.current_time()

    async def answer() -> None:
        for task, when in zip(tasks, answered_at, strict=False):
            await trio.sleep_until(start + when)
            await state.store_task_res(answer_to(task))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        given = await pull(api, *(task.task_id for task in tasks))
        assert trio.current_time() - start == pytest.approx(given_at)
        assert len(given) == sum(when < given_at + 0.01 for when in answered_at)


async def test_nothing_is_held_once_the_api_stops(api: Api, state: MemoryState) -> None:
    run_id, node_id = await create_run(api), await state.create_node(30.0)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])

    async def driver() -> None:
        assert await pull(api, task.task_id) == []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver)
        await wait_all_tasks_blocked()
        api.holds.release()
    await driver()


async def test_without_a_hold_a_pull_never_waits(state: MemoryState, mock_clock: MockClock) -> None:
    api = driver_api(state, hold=lambda: 0.0, message_limit=LIMIT, rounds=Rounds())
    run_id, node_id = await create_run(api), await state.create_node(30.0)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    assert await pull(api, task.task_id) == []


async def test_large_answers_come_in_portions_without_waiting_for_all(
    api: Api, state: MemoryState, mock_clock: MockClock
) -> None:
    run_id, node_id = await create_run(api), await state.create_node(30.0)
    tasks = [task_ins(run_id, node_id) for _ in range(6)]
    await state.store_task_ins(tasks)
    for number, task in enumerate(tasks[:-1]):
        await state.store_task_res(answer_to(task, content=bytes([number]) * (LIMIT // 3)))
    ids = [task.task_id for task in tasks]
    portions = [len(await pull(api, *ids)) for _ in range(3)]
    assert portions == [2, 2, 1]


async def test_an_answer_that_did_not_leave_is_there_again(api: Api, state: MemoryState) -> None:
    run_id, node_id = await create_run(api), await state.create_node(30.0)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    await state.store_task_res(answer_to(task))
    request = pb.PullTaskResRequest(task_ids=[task.task_id]).SerializeToString()
    with pytest.raises(BrokenPipeError):
        async with api.leased["PullTaskRes"](request, CALLER):
            raise BrokenPipeError
    assert len(await pull(api, task.task_id)) == 1
    assert await pull(api, task.task_id) == []


async def test_ids_that_are_none_are_refused_and_empty_ones_ask_nothing(api: Api) -> None:
    with pytest.raises(Refused, match="'abc' is no UUID"):
        await pull(api, str(uuid.uuid4()), "abc")
    assert await pull(api, "", str(uuid.uuid4())) == []


async def test_a_task_for_a_node_that_is_not_there_is_answered_at_once(
    api: Api, state: MemoryState, mock_clock: MockClock
) -> None:
    run_id = await create_run(api)
    (task_id,) = await push(api, pb_task_ins(run_id, 4711))
    (answer,) = await pull(api, task_id)
    assert answer.task.error.code == 3
    assert answer.task.error.reason.startswith("Error: Node Unavailable - The destination node")


async def test_the_log_tells_what_moved_once_a_second(
    api: Api,
    state: MemoryState,
    rounds: Rounds,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
    nursery: trio.Nursery,
) -> None:
    caplog.set_level(logging.INFO)
    nursery.start_soon(rounds.report)
    run_id, node_id = await create_run(api), await state.create_node(30.0)
    ids = await push(api, pb_task_ins(run_id, node_id))
    ids += await push(api, pb_task_ins(run_id, node_id), pb_task_ins(run_id, node_id))
    await push(api, pb_task_ins(run_id + 1, node_id))
    await trio.sleep(2)
    await state.store_error(ids[0], TaskError(0, "broken"), producer=None)
    for _ in ids[1:]:
        task = await state.take_task_ins(node_id)
        assert task is not None
        await state.store_task_res(answer_to(task))
    await pull(api, *ids)
    nursery.cancel_scope.cancel()
    await trio.lowlevel.checkpoint()
    assert [record.getMessage() for record in caplog.records] == [
        f"Run {run_id} created",
        f"Run {run_id + 1} is not known: 1 task for it refused",
        f"Run {run_id}, round 1: 3 train tasks sent to 1 node",
        f"Run {run_id}, round 1: 3 answers collected, 1 error among them: broken",
    ]


@pytest.mark.parametrize(
    ("kinds", "errors", "line"),
    [
        (["get_parameters"], 0, "1 get_parameters task sent to 1 node"),
        (["train", "evaluate", "train"], 0, "1 evaluate and 2 train tasks sent to 1 node"),
        (["train"] * 2, 2, "2 errors among them: broken (2 times)"),
    ],
)
async def test_one_is_no_plural(
    kinds: list[str], errors: int, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "superlink_trio.rounds.progress")
    rounds = Rounds()
    tasks = [task_ins(1, task_type=kind, group_id="") for kind in kinds]
    rounds.sent(following.asked(tasks))
    failed = [answer_to(task, content=TaskError(0, "broken")) for task in tasks[:errors]]
    rounds.collected(following.answered(failed))
    with trio.CancelScope() as scope:
        scope.cancel()
        await rounds.report()
    [message] = caplog.messages
    assert message.endswith(line)


async def test_the_builders_agree_with_the_api(state: MemoryState) -> None:
    run_id = await state.create_run(Run())
    task = task_ins(run_id, 99)
    await state.store_task_ins([task])
    (answer,) = await state.take_task_res([task.task_id], LIMIT)
    assert is_error(answer, 3)


async def test_what_does_not_fit_is_refused_with_what_to_do(api: Api, state: MemoryState) -> None:
    run_id, node_id = await create_run(api), await state.create_node(30.0)
    state.limits = StateLimits(stored_size=100_000, tasks_per_node=2)
    items = [pb_task_ins(run_id, node_id) for _ in range(3)]
    large = pb_task_ins(run_id, node_id, recordset=bytes(60_000))
    fab = pb.Fab(hash_str=hashlib.sha256(bytes(60_000)).hexdigest(), content=bytes(60_000))
    for call, reason in (
        (push(api, *items), "--max-tasks-per-node allows: collect results first"),
        (push(api, large), "the half of --max-stored-size"),
        (create_run(api, pb.CreateRunRequest(fab=fab)), "the half of --max-stored-size"),
    ):
        with pytest.raises(Refused, match=reason) as caught:
            await call
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
    assert len(await push(api, *items[:2])) == 2


async def test_what_a_driver_names_does_not_make_log_lines_long(
    api: Api,
    state: MemoryState,
    rounds: Rounds,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
) -> None:
    caplog.set_level(logging.INFO)
    run_id = await create_run(api, pb.CreateRunRequest(fab_id="x" * 100_000))
    node_id = await state.create_node(30.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rounds.report)
        await push(
            api,
            *(pb_task_ins(run_id, node_id, task_type=f"{n}" * 100_000) for n in range(10)),
        )
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    created, moved = caplog.records
    assert len(getattr(created, "fab_id", "")) < 300
    assert len(moved.getMessage()) < 1100


async def test_a_flood_of_runs_is_a_few_log_lines(
    api: Api, state: MemoryState, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node_id = await state.create_node(30.0)
    for _ in range(500):
        await create_run(api)
    await push(api, *(pb_task_ins(run_id, node_id) for run_id in range(1, 1000)))
    assert len(caplog.messages) == 100
