"""Random histories of calls, each checked against a model simple enough to be believed.

The model keeps lists and scans them. The store runs in a Trio of its own thread, under a mock
clock that only the history moves.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest
import trio
from builders import EPOCH, answer_to, task_ins
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from stores import STORES, settle
from trio.testing import MockClock

from examples import at_most
from superlink_trio.state import Admission, NotTaken, State
from superlink_trio.state.interface import (
    LINGER,
    MAX_DELIVERIES,
    NODE_UNAVAILABLE,
    OUT_OF_TIME,
    Clock,
)
from superlink_trio.wire.runs import Run
from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError

Result = TypeVar("Result")
BIG = 10**9


class Host:
    """A Trio program in a thread, in which a store lives for one history."""

    def __init__(self, make: Callable[[Clock, Path], State]) -> None:
        self.clock = MockClock()
        self._folder = tempfile.TemporaryDirectory()
        self._make = make
        self._ready: queue.Queue[State | BaseException] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        ready = self._ready.get(timeout=30)
        if isinstance(ready, BaseException):
            raise ready
        self.state = ready

    def _run(self) -> None:
        try:
            trio.run(self._main, clock=self.clock)
        except BaseException as error:
            self._ready.put(error)
            raise

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stopping = trio.Event()
        state = self._make(lambda: EPOCH + trio.current_time(), Path(self._folder.name))
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: state.serve(stopping=self._stopping, task_status=task_status)
            )
            self._ready.put(state)

    def call(self, function: Callable[..., Awaitable[Result]], *args: Any, **kwargs: Any) -> Result:
        async def bounded() -> Result:
            return await function(*args, **kwargs)

        return trio.from_thread.run(bounded, trio_token=self._token)

    def jump(self, seconds: float) -> None:
        async def jump() -> None:
            self.clock.jump(seconds)
            await settle(self.state)

        self.call(jump)

    def outcome(
        self, function: Callable[..., Awaitable[Result]], *args: Any, **kwargs: Any
    ) -> list[Result]:
        """Give what a call returns without waiting for anybody; nothing if it would wait."""

        async def run() -> list[Result]:
            results: list[Result] = []

            async def collect() -> None:
                results.append(await function(*args, **kwargs))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(collect)
                await settle(self.state)
                nursery.cancel_scope.cancel()
            return results

        return self.call(run)

    def close(self) -> None:
        trio.from_thread.run_sync(self._stopping.set, trio_token=self._token)
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()
        self._folder.cleanup()


@attrs.define(eq=False)
class Asked:
    """What the model knows of one TaskIns."""

    task: Task
    where: str = "queued"  # queued, taken, handed over
    connection: str = ""
    deliveries: int = 0
    answer: Task | None = None
    answer_taken: bool = False
    gone: bool = False


class Contract(RuleBasedStateMachine):
    """Rules are the calls; each compares what the store says with what the model expects."""

    store = "memory"

    nodes = Bundle("nodes")
    asked = Bundle("asked")
    leases = Bundle("leases")
    answer_leases = Bundle("answer_leases")

    def __init__(self) -> None:
        super().__init__()
        self.host = Host(STORES[self.store])
        self.state = self.host.state
        self.now = EPOCH
        self.online_until: dict[int, float] = {}
        self.deleted: set[int] = set()
        self.tasks: list[Asked] = []

    def teardown(self) -> None:
        self.host.close()

    @initialize()
    def begin(self) -> None:
        self.run_id = self.host.call(self.state.create_run, Run())

    # What the model expects

    def online(self, node_id: int) -> bool:
        return self.online_until.get(node_id, 0.0) > self.now

    def expired(self, asked: Asked) -> bool:
        return asked.task.pushed_at + asked.task.ttl <= self.now

    def error(self, asked: Asked) -> TaskError | None:
        if self.expired(asked):
            return OUT_OF_TIME
        if asked.task.consumer != ANONYMOUS and not self.online(asked.task.consumer):
            return NODE_UNAVAILABLE
        return None

    def may_be_handed_out(self, asked: Asked, node_id: int) -> bool:
        return (
            asked.task.consumer == node_id
            and asked.where == "queued"
            and asked.answer is None
            and not asked.answer_taken
            and not asked.gone
            and not self.expired(asked)
        )

    def admission(self, node_id: int, readmit: bool) -> Admission:
        if node_id in self.online_until:
            return Admission.KNOWN
        if readmit and node_id not in self.deleted:
            return Admission.READMITTED
        return Admission.UNKNOWN

    # Rules

    @rule(target=nodes, interval=st.sampled_from([0.0, 30.0, 90.0]))
    def create_node(self, interval: float) -> int:
        node_id = self.host.call(self.state.create_node, interval)
        assert node_id not in self.online_until
        assert node_id not in self.deleted
        self.online_until[node_id] = self.now + interval
        return node_id

    @rule(target=nodes, node_id=st.sampled_from([7, -7]))
    def a_node_of_before(self, node_id: int) -> int:
        return node_id

    @rule(target=asked, count=st.integers(1, 3))
    def push_to_a_new_node(self, count: int) -> Any:
        return self.push([self.create_node(90.0)] * count, 3600.0, True)

    @rule(asked=asked, connection=st.sampled_from(["c1", "c2"]), arrives=st.booleans())
    def deliver(self, asked: Asked, connection: str, arrives: bool) -> None:
        lease = self.take(asked.task.consumer, connection)
        if isinstance(lease, Asked):
            (self.confirm if arrives else self.put_back)(lease)

    @rule(node_id=nodes, interval=st.sampled_from([1.0, 30.0]), readmit=st.booleans())
    def ping(self, node_id: int, interval: float, readmit: bool) -> None:
        expected = self.admission(node_id, readmit)
        assert self.host.call(self.state.ping, node_id, interval, readmit=readmit) is expected
        if expected is not Admission.UNKNOWN:
            self.online_until[node_id] = self.now + interval

    @rule(node_id=nodes, readmit=st.booleans())
    def greet(self, node_id: int, readmit: bool) -> None:
        expected = self.admission(node_id, readmit)
        assert self.host.call(self.state.greet, node_id, readmit=readmit) is expected
        if expected is not Admission.UNKNOWN:
            until = self.online_until.get(node_id, 0.0)
            self.online_until[node_id] = max(until, self.now + 30.0)

    @rule(node_id=nodes)
    def delete_node(self, node_id: int) -> None:
        known = node_id in self.online_until
        assert self.host.call(self.state.delete_node, node_id) is known
        if known:
            del self.online_until[node_id]
            self.deleted.add(node_id)

    @rule(
        target=asked,
        node_ids=st.lists(nodes | st.just(ANONYMOUS), min_size=1, max_size=3),
        ttl=st.sampled_from([5.0, 60.0, 3600.0]),
        known=st.booleans() | st.just(True),
    )
    def push(self, node_ids: list[int], ttl: float, known: bool) -> Any:
        run_id = self.run_id if known else self.run_id + 1
        tasks = [task_ins(run_id, node_id, now=self.now, ttl=ttl) for node_id in node_ids]
        expected = [task.task_id if known else "" for task in tasks]
        assert list(self.host.call(self.state.store_task_ins, tasks)) == expected
        pushed = [Asked(task, gone=not known) for task in tasks]
        self.tasks += pushed
        return multiple(*pushed)

    @rule(
        target=leases,
        node_id=nodes | st.just(ANONYMOUS),
        connection=st.sampled_from(["", "c1", "c2"]),
    )
    def take(self, node_id: int, connection: str) -> Any:
        for each in self.tasks:
            if (
                node_id != ANONYMOUS
                and each.task.consumer == node_id
                and each.where == "handed over"
                and each.deliveries < MAX_DELIVERIES
                and (connection == "" or connection != each.connection)
            ):
                each.where = "queued"
        able = [each for each in self.tasks if self.may_be_handed_out(each, node_id)]
        task = self.host.call(self.state.take_task_ins, node_id, connection)
        assert task == (able[0].task if able else None)
        if not able:
            return multiple()
        able[0].where = "taken"
        able[0].connection = connection
        able[0].deliveries += 1
        return able[0]

    @rule(lease=consumes(leases))
    def confirm(self, lease: Asked) -> None:
        self.host.call(self.state.confirm_task_ins, lease.task)
        lease.where = "handed over"

    @rule(lease=consumes(leases))
    def put_back(self, lease: Asked) -> None:
        self.host.call(self.state.put_back_task_ins, lease.task)
        lease.where = "queued"
        lease.deliveries -= 1

    @rule(asked=asked, honest=st.booleans() | st.just(True))
    def answer(self, asked: Asked, honest: bool) -> None:
        producer = asked.task.consumer if honest else 4711
        answer = answer_to(asked.task, now=self.now, producer=producer)
        try:
            task_id = self.host.call(self.state.store_task_res, answer)
        except NotTaken:
            assert asked.gone or not honest or (asked.answer is None and self.expired(asked))
            return
        assert honest
        assert not asked.gone
        if asked.answer is not None:
            assert task_id == asked.answer.task_id
        else:
            assert not self.expired(asked)
            asked.answer = answer

    @rule(
        target=answer_leases,
        wanted=st.lists(asked, max_size=4),
        limit=st.sampled_from([1, 3000, BIG]),
    )
    def take_answers(self, wanted: list[Asked], limit: int) -> Any:
        ids = [each.task.task_id for each in wanted]
        expected: list[Asked] = []
        for each in dict.fromkeys(wanted):
            if each.gone or each.answer_taken:
                continue
            if each.answer is None and self.error(each) is None:
                continue
            expected.append(each)
        answers = self.host.call(self.state.take_task_res, ids, limit)
        if limit == BIG:
            assert len(answers) == len(expected)
        else:
            assert bool(answers) == bool(expected)
            assert len(answers) == 1 or sum(answer.size for answer in answers) <= limit
        taken = expected[: len(answers)]
        for each, answer in zip(taken, answers, strict=True):
            assert answer.ancestry == (each.task.task_id,)
            if each.answer is not None:
                assert answer == each.answer
            else:
                assert answer.content == self.error(each)
            each.answer_taken = True
        return taken, answers

    @rule(lease=consumes(answer_leases))
    def confirm_answers(self, lease: tuple[list[Asked], list[Task]]) -> None:
        self.host.call(self.state.confirm_task_res, lease[1])
        for each in lease[0]:
            each.gone = True

    @rule(lease=consumes(answer_leases))
    def put_back_answers(self, lease: tuple[list[Asked], list[Task]]) -> None:
        self.host.call(self.state.put_back_task_res, lease[1])
        for each in lease[0]:
            each.answer_taken = False

    @rule(seconds=st.sampled_from([1.0, 4.0, 29.0, 31.0]))
    def wait(self, seconds: float) -> None:
        if self.now + seconds < EPOCH + LINGER:
            self.now += seconds
            self.host.jump(seconds)

    @rule(node_id=nodes | st.just(ANONYMOUS))
    def a_pull_would_wait(self, node_id: int) -> None:
        expected: list[bool] = []
        if node_id != ANONYMOUS and node_id not in self.online_until:
            expected = [False]
        elif any(self.may_be_handed_out(each, node_id) for each in self.tasks):
            expected = [True]
        assert self.host.outcome(self.state.await_task_ins, node_id) == expected

    @rule(wanted=st.lists(asked, max_size=4), enough=st.sampled_from([1, BIG]))
    def a_driver_would_wait(self, wanted: list[Asked], enough: int) -> None:
        ids = [each.task.task_id for each in wanted]
        open_questions = [each for each in wanted if not each.gone and not each.answer_taken]
        settled = all(
            each.answer is not None or self.error(each) is not None for each in open_questions
        )
        answered = any(each.answer is not None for each in open_questions)
        returned = bool(self.host.outcome(self.state.await_task_res, ids, enough))
        assert returned is (settled or (answered and enough == 1))

    @invariant()
    def who_is_online(self) -> None:
        online = self.host.call(self.state.online_nodes, self.run_id)
        assert sorted(online) == sorted(filter(self.online, self.online_until))


@pytest.mark.parametrize("store", STORES)
def test_every_history_is_as_the_model_says(store: str) -> None:
    machine = type("Contract", (Contract,), {"store": store})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=at_most(120), stateful_step_count=60, deadline=None)
    )
