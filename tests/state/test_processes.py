"""Several processes over one database. Two stores in one process are two to each other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from builders import EPOCH, answer_to, is_error, task_ins
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgresql import the_server
from stores import hear, serving, settle
from trio.testing import MockClock

from examples import at_most
from superlink_trio.state import Admission, State, open_state
from superlink_trio.state.durable import DurableState
from superlink_trio.wire.runs import Run
from superlink_trio.wire.tasks import ANONYMOUS, Task

MiB = 1024 * 1024


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Name a database that several may use."""
    return the_server().new_schema() if request.param == "postgres" else str(tmp_path / "state.db")


@pytest.fixture
async def sides(database: str) -> AsyncIterator[tuple[DurableState, DurableState]]:
    start = trio.current_time()
    one, other = (
        open_state(database, clock=lambda: EPOCH + trio.current_time() - start) for _ in range(2)
    )
    assert isinstance(one, DurableState)
    assert isinstance(other, DurableState)
    async with serving(one), serving(other):
        yield one, other


async def test_a_task_wakes_a_node_in_another_process(
    sides: tuple[DurableState, DurableState], nursery: trio.Nursery
) -> None:
    driver, fleet = sides
    run_id, node_id = await driver.create_run(Run()), await fleet.create_node(30.0)
    assert await fleet.take_task_ins(node_id, "c1") is None
    woken = trio.Event()

    async def wait() -> None:
        assert await fleet.await_task_ins(node_id)
        woken.set()

    nursery.start_soon(wait)
    await settle(driver, fleet)
    assert not woken.is_set()
    task = task_ins(run_id, node_id)
    await driver.store_task_ins([task])
    await woken.wait()
    assert await fleet.take_task_ins(node_id, "c1") == task


async def test_a_task_wakes_who_listens_for_many_nodes_in_another_process(
    sides: tuple[DurableState, DurableState], nursery: trio.Nursery
) -> None:
    driver, fleet = sides
    run_id = await driver.create_run(Run())
    nodes = [await fleet.create_node(30.0) for _ in range(3)]
    told: list[int] = []

    async def listen() -> None:
        with fleet.arrivals(nodes) as arrivals:
            while True:
                told.append(await arrivals.next())

    nursery.start_soon(listen)
    await settle(driver, fleet)
    for node_id in (nodes[2], nodes[0]):
        await driver.store_task_ins([task_ins(run_id, node_id)])
        with trio.fail_after(5):
            while node_id not in told:
                await settle(driver, fleet)
    assert told == [nodes[2], nodes[0]]


async def test_an_answer_wakes_a_driver_in_another_process(
    sides: tuple[DurableState, DurableState], nursery: trio.Nursery
) -> None:
    driver, fleet = sides
    run_id, node_id = await driver.create_run(Run()), await fleet.create_node(30.0)
    task = task_ins(run_id, node_id)
    await driver.store_task_ins([task])
    woken = trio.Event()

    async def wait() -> None:
        await driver.await_task_res([task.task_id], MiB)
        woken.set()

    nursery.start_soon(wait)
    await settle(driver, fleet)
    assert not woken.is_set()
    answer = answer_to(task)
    await fleet.store_task_res(answer)
    await woken.wait()
    assert await driver.take_task_res([task.task_id], MiB) == [answer]
    assert await fleet.take_task_res([task.task_id], MiB) == []


async def test_what_one_process_holds_no_other_gives_away(
    sides: tuple[DurableState, DurableState],
) -> None:
    one, other = sides
    run_id, node_id = await one.create_run(Run()), await one.create_node(30.0)
    tasks = [task_ins(run_id, node_id) for _ in range(2)]
    await one.store_task_ins(tasks)
    taken = [await one.take_task_ins(node_id, "c1"), await other.take_task_ins(node_id, "c2")]
    assert taken == tasks
    await other.put_back_task_ins(tasks[0])
    assert await other.take_task_ins(node_id, "c2") is None
    await one.put_back_task_ins(tasks[0])
    await hear(other)
    assert await other.take_task_ins(node_id, "c2") == tasks[0]


async def test_a_node_deleted_in_one_process_is_gone_in_another(
    sides: tuple[DurableState, DurableState], nursery: trio.Nursery
) -> None:
    one, other = sides
    run_id, node_id = await one.create_run(Run()), await one.create_node(30.0)
    assert await other.ping(node_id, 30.0, readmit=False) is Admission.KNOWN
    task = task_ins(run_id, node_id)
    await one.store_task_ins([task])
    taken = await other.take_task_ins(node_id, "c1")
    assert taken is not None
    await other.confirm_task_ins(taken)
    ended: list[object] = []

    async def pull() -> None:
        ended.append(await other.await_task_ins(node_id))

    async def gather() -> None:
        await other.await_task_res([task.task_id], MiB)
        ended.append("driver")

    nursery.start_soon(pull)
    nursery.start_soon(gather)
    await settle(one, other)
    assert ended == []
    await one.delete_node(node_id)
    while len(ended) < 2:
        await settle(one, other)
    assert await other.ping(node_id, 30.0, readmit=True) is Admission.UNKNOWN
    [answer] = await other.take_task_res([task.task_id], MiB)
    assert is_error(answer, 3)


async def test_a_held_pull_keeps_its_node_online_for_other_processes(
    sides: tuple[DurableState, DurableState], mock_clock: MockClock
) -> None:
    driver, fleet = sides
    run_id, node_id = await driver.create_run(Run()), await fleet.create_node(30.0)
    with fleet.attend(node_id):
        for _ in range(20):
            mock_clock.jump(5)
            await settle(driver, fleet)
            mock_clock.jump(1)
            await settle(driver, fleet)
        assert await driver.online_nodes(run_id) == [node_id]


async def test_a_node_that_pulls_from_another_process_waits_there_only(
    sides: tuple[DurableState, DurableState], nursery: trio.Nursery
) -> None:
    old, new = sides
    run_id, node_id = await old.create_run(Run()), await old.create_node(30.0)
    for before, after in ((old, new), (new, old)):
        await before.heartbeat(node_id, readmit=False)
        ended: list[bool] = []

        async def pull(before: DurableState = before, ended: list[bool] = ended) -> None:
            ended.append(await before.await_task_ins(node_id))

        nursery.start_soon(pull)
        await settle(old, new)
        assert ended == []
        await after.heartbeat(node_id, readmit=False)
        with trio.fail_after(5):
            while not ended:
                await settle(old, new)
        assert ended == [False]
    await old.store_task_ins([task_ins(run_id, node_id)])
    assert await old.await_task_ins(node_id)


async def test_a_node_whose_connection_broke_in_one_process_may_be_back_in_another(
    sides: tuple[DurableState, DurableState], mock_clock: MockClock
) -> None:
    old, new = sides
    run_id, node_id = await old.create_run(Run()), await old.create_node(30.0)
    await new.heartbeat(node_id, readmit=False)
    await settle(old, new)
    mock_clock.jump(20)
    with trio.CancelScope() as connection, old.attend(node_id):
        connection.cancel()
        await trio.lowlevel.checkpoint()
    mock_clock.jump(0.1)
    await new.heartbeat(node_id, readmit=False)
    # What the new one says is in the file before what the old one does.
    await new.store_task_ins([task_ins(run_id, ANONYMOUS)])
    await old.store_task_ins([task_ins(run_id, ANONYMOUS)])
    mock_clock.jump(20)
    await settle(old, new)
    assert await old.online_nodes(run_id) == [node_id]


async def test_a_node_that_another_process_deletes_is_not_written_again(
    sides: tuple[DurableState, DurableState], mock_clock: MockClock
) -> None:
    one, other = sides
    run_id, node_id = await one.create_run(Run()), await one.create_node(30.0)
    with other.attend(node_id):
        await one.delete_node(node_id)
    mock_clock.jump(1)
    await settle(one, other)
    assert await other.online_nodes(run_id) == []


@asynccontextmanager
async def in_time(database: str) -> AsyncIterator[tuple[DurableState, DurableState]]:
    """Give two sides that go by the time of their database, as two processes do."""
    one, other = open_state(database), open_state(database)
    assert isinstance(one, DurableState)
    assert isinstance(other, DurableState)
    async with serving(one), serving(other):
        yield one, other


class Rounds:
    """What two processes do at once, each as if it were alone, and what came of it."""

    def __init__(self, sides: tuple[State, State]) -> None:
        self.sides = sides
        self.taken: Counter[str] = Counter()
        self.collected: Counter[str] = Counter()
        self.tasks: dict[str, Task] = {}
        self.answers: dict[str, set[str]] = {}

    async def at_once(self, doing: str) -> None:
        async with trio.open_nursery() as nursery:
            for state in self.sides:
                nursery.start_soon(getattr(self, doing), state)

    async def push(self, state: State, run_id: int, nodes: list[int]) -> None:
        model = b"w" * 10_000
        tasks = [task_ins(run_id, node, now=state.now(), content=model) for node in nodes]
        self.tasks |= {task.task_id: task for task in tasks}
        await state.store_task_ins(tasks)

    async def work(self, state: State) -> None:
        """Take what there is for the nodes that pull here, and answer it over both sides."""
        # One that pulls elsewhere has lost what it was sent here; anonymous ones pull everywhere.
        place = self.sides.index(state)
        nodes = {task.consumer for task in self.tasks.values()}
        for node_id in [node for node in nodes if node == ANONYMOUS or node % 2 == place]:
            while (task := await state.take_task_ins(node_id, "c")) is not None:
                self.taken[task.task_id] += 1
                await state.confirm_task_ins(task)
                async with trio.open_nursery() as nursery:
                    for each in self.sides:
                        nursery.start_soon(self._answer, each, task)

    async def _answer(self, state: State, task: Task) -> None:
        stored = await state.store_task_res(answer_to(task, now=state.now()))
        self.answers.setdefault(task.task_id, set()).add(stored)

    async def collect(self, state: State) -> None:
        while answers := await state.take_task_res(list(self.tasks), MiB):
            self.collected.update(answer.ancestry[0] for answer in answers)
            await state.confirm_task_res(answers)


async def test_processes_may_start_at_once_over_an_empty_database(database: str) -> None:
    together = trio.Event()
    ready: list[State] = []

    async def run() -> None:
        async with serving(state := open_state(database)):
            await state.create_node(30.0)
            ready.append(state)
            if len(ready) == 4:
                together.set()
            await together.wait()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(run)


@settings(
    max_examples=at_most(8),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    pushes=st.lists(
        st.tuples(st.integers(0, 1), st.lists(st.integers(0, 3), min_size=1, max_size=6)),
        min_size=2,
        max_size=6,
    )
)
async def test_two_processes_at_once_do_everything_once(
    database: str, pushes: list[tuple[int, list[int]]]
) -> None:
    async with in_time(database) as sides, trio.open_nursery() as nursery:
        rounds = Rounds(sides)
        run_id = await sides[0].create_run(Run())
        nodes = [ANONYMOUS, *[await sides[0].create_node(600.0) for _ in range(3)]]
        for side, places in pushes:
            chosen = [nodes[place] for place in places]
            nursery.start_soon(rounds.push, sides[side], run_id, chosen)
        # What one has pushed the other hears of a little later.
        with trio.fail_after(60):
            while not rounds.tasks or len(rounds.taken) < len(rounds.tasks):
                await rounds.at_once("work")
            while len(rounds.collected) < len(rounds.tasks):
                await rounds.at_once("collect")
    once = dict.fromkeys(rounds.tasks, 1)
    assert rounds.taken == once
    assert rounds.collected == once
    assert all(len(stored) == 1 for stored in rounds.answers.values())


async def test_what_is_gone_takes_no_room_whoever_has_removed_it(
    sides: tuple[DurableState, DurableState], mock_clock: MockClock
) -> None:
    one, other = sides
    run_id, nodes = await one.create_run(Run()), [await one.create_node(600.0) for _ in range(8)]
    tasks = [task_ins(run_id, node, content=b"m" * 50_000) for node in nodes]
    await one.store_task_ins(tasks)
    before = await other.census()
    assert (before.payloads.count, before.nodes) == (1, 8)
    async with trio.open_nursery() as nursery:
        for place, task in enumerate(tasks):
            nursery.start_soon(sides[place % 2].store_task_res, answer_to(task))
    await other.confirm_task_res(await other.take_task_res([task.task_id for task in tasks], MiB))
    for _ in range(3):
        mock_clock.jump(61)
        await settle(one, other)
    after = await one.census()
    assert (after.payloads.count, after.stored_bytes) == (0, 0)


@pytest.mark.alone
async def test_a_task_reaches_a_node_of_another_process_at_once(database: str) -> None:
    delays: list[float] = []
    async with in_time(database) as (driver, fleet):
        run_id, node_id = await driver.create_run(Run()), await fleet.create_node(600.0)

        async def pull(*, task_status: trio.TaskStatus[None]) -> None:
            # As one that has nothing to take is parked.
            assert await fleet.take_task_ins(node_id, "c") is None
            task_status.started()
            await fleet.await_task_ins(node_id)
            task = await fleet.take_task_ins(node_id, "c")
            delays.append(time.monotonic() - pushed)
            assert task is not None
            await fleet.confirm_task_ins(task)
            await fleet.store_task_res(answer_to(task, now=fleet.now()))

        for _ in range(21):
            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    await nursery.start(pull)
                    await settle(driver, fleet)
                    pushed = time.monotonic()
                    await driver.store_task_ins([task_ins(run_id, node_id, now=driver.now())])
    # Who is not told looks after two seconds. On a machine with nothing else to do it is 10 ms.
    assert sorted(delays)[10] < 0.5
