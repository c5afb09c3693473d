"""Random histories of calls, each checked against a model simple enough to be believed.

The model keeps lists and scans them. The store runs in a Trio of its own thread, under a mock
clock that only the history moves.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import pytest
from builders import EPOCH, answer_to, task_ins
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    consumes,
    multiple,
    rule,
    run_state_machine_as_test,
)
from node_model import BIG, Nodes
from postgresql import the_server
from stores import STORES

from examples import at_most
from superlink_trio.state import LimitReached, NotTaken
from superlink_trio.state.interface import LINGER, MAX_DELIVERIES, NODE_UNAVAILABLE, OUT_OF_TIME
from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError


@attrs.define(eq=False)
class Asked:
    """What the model knows of one TaskIns."""

    task: Task
    where: str = "queued"  # queued, taken, handed over
    connection: str = ""
    deliveries: int = 0
    answer: Task | TaskError | None = None
    answer_taken: bool = False
    gone: bool = False


class Contract(Nodes):
    """And all of the rest: runs, tasks, answers, and who waits for them."""

    nodes = Nodes.nodes
    asked = Bundle("asked")
    leases = Bundle("leases")
    answer_leases = Bundle("answer_leases")

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[Asked] = []
        self.listened_to: set[int] = set()
        self.listening = self.state.arrivals(())
        self.arrivals = self.host.enter(self.listening)

    # What the model expects

    def expired(self, asked: Asked) -> bool:
        return asked.task.pushed_at + asked.task.ttl <= self.now

    def error(self, asked: Asked) -> TaskError | None:
        if self.expired(asked):
            return OUT_OF_TIME
        if asked.task.consumer != ANONYMOUS and not self.online(asked.task.consumer):
            return NODE_UNAVAILABLE
        return None

    def may_be_handed_out(self, asked: Asked, node_id: int) -> bool:
        return asked.task.consumer == node_id and self.queued(asked)

    def queued(self, asked: Asked) -> bool:
        return (
            asked.where == "queued"
            and asked.answer is None
            and not asked.answer_taken
            and not asked.gone
            and not self.expired(asked)
        )

    def unanswered(self, node_id: int, *, within_time: bool) -> int:
        """Count what has no answer. When those out of time stop to count is open."""
        return sum(
            each.task.consumer == node_id
            and not each.gone
            and each.answer is None
            and not (within_time and self.expired(each))
            for each in self.tasks
        )

    # Rules

    @rule(target=asked, count=st.integers(1, 3))
    def push_to_a_new_node(self, count: int) -> Any:
        node_id = self.create_node(90.0)
        return self.push([node_id] * count, 3600.0, True) if node_id in self.known else multiple()

    @rule(asked=asked, connection=st.sampled_from(["c1", "c2"]), arrives=st.booleans())
    def deliver(self, asked: Asked, connection: str, arrives: bool) -> None:
        lease = self.take(asked.task.consumer, connection)
        if isinstance(lease, Asked):
            (self.confirm if arrives else self.put_back)(lease)

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
        limit = self.state.limits.tasks_per_node if known else BIG
        try:
            assert list(self.host.call(self.state.store_task_ins, tasks)) == expected
        except LimitReached:
            assert any(
                self.unanswered(node_id, within_time=False) + more > limit
                for node_id, more in Counter(node_ids).items()
            )
            return multiple()
        for node_id, more in Counter(node_ids).items():
            assert self.unanswered(node_id, within_time=True) + more <= limit
        pushed = [Asked(task, gone=not known) for task in tasks]
        self.tasks += pushed
        return multiple(*pushed)

    @rule(
        target=leases,
        node_id=nodes | st.just(ANONYMOUS),
        connection=st.sampled_from(["", "c1", "c2"]),
    )
    def take(self, node_id: int, connection: str) -> Any:
        if node_id != ANONYMOUS and node_id not in self.known:
            assert self.host.call(self.state.take_task_ins, node_id, connection) is None
            return multiple()
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
        if isinstance(asked.answer, Task):
            assert task_id == asked.answer.task_id
        elif asked.answer is None:
            assert not self.expired(asked)
            asked.answer = answer

    @rule(asked=asked, producer=st.sampled_from(["none", "its own", "another"]))
    def fail(self, asked: Asked, producer: str) -> None:
        error = TaskError(2, "ValueError:<'x'>")
        node_id = {"none": None, "its own": asked.task.consumer, "another": 4711}[producer]
        expected = not asked.gone and asked.answer is None and producer != "another"
        stored = self.host.call(self.state.store_error, asked.task.task_id, error, producer=node_id)
        assert stored is expected
        if expected:
            asked.answer = error

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
            if isinstance(each.answer, Task):
                assert answer == each.answer
            else:
                assert answer.content == (each.answer or self.error(each))
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

    @rule(node_ids=st.none() | st.sets(nodes | st.just(ANONYMOUS), max_size=4))
    def listen(self, node_ids: set[int] | None) -> None:
        if node_ids is None:
            node_ids = {ANONYMOUS, *self.known}
        self.host.exit(self.listening)
        self.listening, self.listened_to = self.state.arrivals(node_ids), node_ids
        self.arrivals = self.host.enter(self.listening)

    @rule(arrive=st.lists(st.booleans(), min_size=1, max_size=4))
    def serve_arrivals(self, arrive: list[bool]) -> None:
        for arrives in arrive:
            self.serve_an_arrival(arrives)

    def serve_an_arrival(self, arrives: bool) -> None:
        """A node may be given in vain, but none is left out that may take a task."""
        arrived = self.host.outcome(self.arrivals.next)
        if not arrived:
            waiting = {each.task.consumer for each in self.tasks if self.queued(each)}
            assert not waiting & self.listened_to & {ANONYMOUS, *self.known}
            return
        [node_id] = arrived
        assert node_id in self.listened_to
        lease = self.take(node_id, "simulated")
        if isinstance(lease, Asked):
            (self.confirm if arrives else self.put_back)(lease)
        self.host.call_sync(self.arrivals.done, node_id)

    @rule(node_id=nodes | st.just(ANONYMOUS))
    def a_pull_would_wait(self, node_id: int) -> None:
        expected: list[bool] = []
        if node_id != ANONYMOUS and node_id not in self.known:
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


# The steps of PostgreSQL are those of SQLite, and a history takes several times as long there.
HISTORIES = dict.fromkeys(STORES, 120) | {"postgres": 20}


@pytest.mark.parametrize("store", STORES)
def test_every_history_is_as_the_model_says(store: str) -> None:
    if store == "postgres":
        the_server()  # skips the test where there is none
    machine = type("Contract", (Contract,), {"store": store})
    examples = at_most(HISTORIES[store])
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=60, deadline=None)
    )
