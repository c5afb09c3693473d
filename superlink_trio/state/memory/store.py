"""`MemoryState`: the contract, kept by dictionaries."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager

import attrs
import trio

from superlink_trio.state import rules
from superlink_trio.state.arrivals import Arrivals
from superlink_trio.state.census import Census
from superlink_trio.state.ids import draw_id
from superlink_trio.state.interface import HEARTBEAT_TIMEOUT, Admission, Clock, State
from superlink_trio.state.limits import NO_LIMITS, StateLimits
from superlink_trio.state.memory.nodes import Nodes
from superlink_trio.state.memory.tasks import Entry, Tasks
from superlink_trio.state.payloads import digests_of
from superlink_trio.state.rules import Asked, Phase, Question, Reply, Survey, Verdict
from superlink_trio.state.waiting import Waiting
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError, error_answer

_NOT_WAITED_FOR = "answered already, out of time, or lost in a restart"


class MemoryState(State):
    """State in memory."""

    def __init__(self, *, clock: Clock = time.time, limits: StateLimits = NO_LIMITS) -> None:
        super().__init__(clock=clock, limits=limits)
        self._waiting = Waiting(clock)
        self._nodes = Nodes(clock, self._registered)
        self._tasks = Tasks(clock, self._waiting)
        self._runs: dict[int, Run] = {}
        self._fabs: dict[str, Fab] = {}
        self._size_of_fabs = 0

    async def serve(
        self,
        *,
        stopping: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Sweep until `stopping`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tasks.sweep)
            nursery.start_soon(self._nodes.sweep)
            task_status.started()
            await stopping.wait()
            nursery.cancel_scope.cancel()

    # Nodes

    async def create_node(self, ping_interval: float, public_key: bytes = b"") -> int:
        online_until = self.now() + rules.bounded_interval(ping_interval)
        return self._nodes.create(online_until, public_key, self.limits)

    async def create_simulated_node(self) -> int:
        return await self.create_node(HEARTBEAT_TIMEOUT)

    async def node_of_key(self, public_key: bytes) -> int | None:
        return self._nodes.of_key(public_key)

    async def bind_node(self, node_id: int, public_key: bytes, *, readmit: bool) -> Admission:
        return self._nodes.bind(node_id, public_key, self.limits, readmit=readmit)

    async def delete_node(self, node_id: int) -> bool:
        known = self._nodes.delete(node_id, self.limits)
        if known:
            self._waiting.pulls.wake_all(node_id)
            for task_id in self._tasks.unanswered(node_id):
                self._waiting.drivers.settle(task_id, 0)
        return known

    async def ping(self, node_id: int, ping_interval: float, *, readmit: bool) -> Admission:
        admission, node = self._nodes.admit(node_id, self.limits, readmit=readmit)
        if node is not None:
            node.online_until = self.now() + rules.bounded_interval(ping_interval)
        return admission

    async def heartbeat(self, node_id: int, *, readmit: bool) -> Admission:
        self._waiting.pulls.replace(node_id)
        admission, node = self._nodes.admit(node_id, self.limits, readmit=readmit)
        if node is not None:
            node.renew(self.now())
        return admission

    def _registered(self, node_id: int) -> None:
        # One that comes back may take now what could not be taken before.
        queued = self._tasks.queued(node_id)
        if queued:
            self._waiting.notify_listeners(node_id, queued)

    def attend(self, node_id: int) -> AbstractContextManager[None]:
        return self._nodes.attend(node_id)

    async def online_nodes(self, run_id: int) -> Sequence[int]:
        return self._nodes.online() if run_id in self._runs else ()

    # Runs

    async def create_run(self, run: Run, fab: Fab | None = None) -> int:
        if fab is not None and fab.hash not in self._fabs:
            self.limits.check_asked(self._stored, len(fab.content))
            self._fabs[fab.hash] = fab
            self._size_of_fabs += len(fab.content)
        run_id = draw_id(self._runs)
        self._runs[run_id] = attrs.evolve(run, run_id=run_id)
        return run_id

    async def get_run(self, run_id: int) -> Run | None:
        return self._runs.get(run_id)

    async def get_fab(self, fab_hash: str) -> Fab | None:
        return self._fabs.get(fab_hash)

    @property
    def _stored(self) -> int:
        return self._size_of_fabs + self._tasks.size

    # From the driver to the nodes

    async def store_task_ins(self, tasks: Sequence[Task]) -> Sequence[str]:
        digests = await digests_of(tasks)
        known = [
            (task, digest)
            for task, digest in zip(tasks, digests, strict=True)
            if task.run_id in self._runs
        ]
        for node_id, more in Counter(task.consumer for task, _ in known).items():
            self.limits.check_queue(node_id, len(self._tasks.unanswered(node_id)), more)
        self.limits.check_asked(self._stored, self._tasks.needed(known))
        for task, digest in known:
            self._tasks.add(task, digest)
        return [task.task_id if task.run_id in self._runs else "" for task in tasks]

    async def await_task_ins(self, node_id: int) -> bool:
        if self._tasks.first(node_id) is None and self._knows(node_id):
            with self._waiting.pulls.at(node_id) as place:
                await place.woken.wait()
            if place.replaced:
                return False
        return self._knows(node_id)

    def _knows(self, node_id: int) -> bool:
        return node_id == ANONYMOUS or node_id in self._nodes

    def arrivals(self, node_ids: Collection[int]) -> AbstractContextManager[Arrivals]:
        return self._waiting.arrivals(node_ids, self._tasks.survey)

    async def take_task_ins(self, node_id: int, connection: str = "") -> Task | None:
        if node_id != ANONYMOUS:
            if node_id not in self._nodes:
                return None
            self._tasks.requeue_lost(node_id, connection)
        return self._tasks.take(node_id, connection)

    async def confirm_task_ins(self, task: Task) -> None:
        entry = self._tasks.under_way(task.task_id)
        if entry is not None:
            self._tasks.hand_over(entry)
            self._waiting.notify_handed_over(task.consumer)

    async def put_back_task_ins(self, task: Task) -> None:
        entry = self._tasks.under_way(task.task_id)
        if entry is not None:
            entry.deliveries -= 1
            self._tasks.enqueue(entry)

    # From the nodes to the driver

    async def store_task_res(self, task: Task) -> str:
        [digest] = await digests_of([task])
        entry = self._tasks.get(task.ancestry[0])
        asked = None if entry is None else _asked(entry)
        verdict = rules.judge(task, asked, run_exists=task.run_id in self._runs, now=self.now())
        if verdict is Verdict.REPEATED and asked is not None and asked.answer_id is not None:
            return asked.answer_id
        if verdict is not Verdict.STORE or entry is None:
            raise verdict.refusal(task, _NOT_WAITED_FOR)
        self.limits.check_answer(self._stored, self._tasks.needed([(task, digest)]))
        self._tasks.answer(entry, task, digest)
        return task.task_id

    async def store_error(self, task_id: str, error: TaskError, *, producer: int | None) -> bool:
        entry = self._tasks.get(task_id)
        if entry is None or not rules.takes_error(
            node_id=entry.asked.consumer, answered=entry.answer is not None, producer=producer
        ):
            return False
        self._tasks.answer(entry, error_answer(entry.asked, error, now=self.now()))
        return True

    async def await_task_res(
        self,
        task_ids: Collection[str],
        enough: int,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        await self._waiting.drivers.wait(task_ids, enough, progress, self._survey)

    async def _survey(self, task_ids: Collection[str]) -> Survey:
        now = self.now()
        entries = [entry for entry in map(self._tasks.get, task_ids) if entry is not None]
        questions = {entry.task_id: self._question(entry, now) for entry in entries}
        return rules.survey(task_ids, questions, now)

    def _question(self, entry: Entry, now: float) -> Question:
        node_id = entry.asked.consumer
        node = self._nodes.get(node_id)
        until = None if node is None else node.until(now)
        return Question(
            expires_at=entry.expires_at,
            answer_size=None if entry.answer is None else entry.answer.size,
            answer_under_way=entry.answer_under_way,
            node_until=rules.end_of_node(node_id, until),
        )

    async def take_task_res(self, task_ids: Collection[str], limit: int) -> Sequence[Task]:
        answers: list[Task] = []
        for task_id in dict.fromkeys(task_ids):
            entry = self._tasks.get(task_id)
            answer = None if entry is None else self._answer_now(entry)
            if entry is None or answer is None:
                continue
            limit -= answer.size
            if limit < 0 and answers:
                break
            entry.answer_under_way = True
            answers.append(answer)
        return answers

    def _answer_now(self, entry: Entry) -> Task | None:
        now = self.now()
        reply = self._question(entry, now).reply(now)
        if reply is Reply.ANSWER:
            return entry.answer
        return None if reply.error is None else error_answer(entry.asked, reply.error, now=now)

    async def confirm_task_res(self, answers: Sequence[Task]) -> None:
        for answer in answers:
            entry = self._tasks.get(answer.ancestry[0])
            if entry is not None:
                self._tasks.drop(entry)

    async def put_back_task_res(self, answers: Sequence[Task]) -> None:
        for answer in answers:
            entry = self._tasks.get(answer.ancestry[0])
            if entry is not None:
                entry.answer_under_way = False
                if entry.phase is Phase.QUEUED:
                    self._tasks.enqueue(entry)

    async def census(self) -> Census:
        tasks = await self._tasks.count()
        payloads, shared_bytes = self._tasks.count_payloads()
        return Census(
            nodes=len(self._nodes),
            nodes_online=len(self._nodes.online()),
            runs=len(self._runs),
            tasks=tasks,
            payloads=payloads,
            shared_bytes=shared_bytes,
            stored_bytes=self._stored,
        )


def _asked(entry: Entry) -> Asked:
    return Asked(
        node_id=entry.asked.consumer,
        run_id=entry.asked.run_id,
        expires_at=entry.expires_at,
        answer_id=None if entry.answer is None else entry.answer.task_id,
    )
