"""`DurableState`: the contract, kept by steps, caches and those who wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial

import trio

from superlink_trio.state import rules
from superlink_trio.state.arrivals import Arrivals
from superlink_trio.state.census import Census
from superlink_trio.state.durable.acknowledgements import Acknowledgements
from superlink_trio.state.durable.engine import (
    Committed,
    Engine,
    Query,
    Result,
    Taken,
    Transaction,
)
from superlink_trio.state.durable.faults import Locked, patiently
from superlink_trio.state.durable.heartbeats import Alive, Heartbeat, pinged
from superlink_trio.state.durable.known import Known
from superlink_trio.state.durable.upkeep import Upkeep, evict_ended, nothing
from superlink_trio.state.durable.writer import Writer
from superlink_trio.state.gatherings import Gathering
from superlink_trio.state.interface import (
    COME_BACK,
    HEARTBEAT_TIMEOUT,
    Admission,
    CannotOpen,
    Clock,
    State,
    StateUnavailable,
    Work,
    acknowledging,
)
from superlink_trio.state.limits import StateLimits
from superlink_trio.state.payloads import digests_of
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError


class DurableState(State):
    """State in a database, which other processes may use as well."""

    def __init__(self, engine: Engine, *, clock: Clock, limits: StateLimits) -> None:
        super().__init__(clock=clock, limits=limits)
        self._engine = engine
        self._known = Known()
        self._heartbeats = self._known.heartbeats
        self._waiting = self._known.waiting
        self._writer: Writer[Transaction] = Writer(
            engine, self._heartbeats, self._committed, engine.patience
        )
        self._acknowledgements = Acknowledgements(self._writer)
        self._upkeep = Upkeep(
            engine, self._writer, self._heartbeats, clock, lambda: self.limits.nodes
        )

    @property
    def commits(self) -> int:
        """How many transactions were committed."""
        return self._writer.commits

    @property
    def steps(self) -> int:
        """How many steps they held."""
        return self._writer.steps

    @property
    def work(self) -> Work:
        """See `State`."""
        return Work(self._writer.commits, self._writer.steps, self._upkeep.sweeps)

    @property
    def busy(self) -> bool:
        """Whether a worker thread is at work on the database."""
        return bool(self._writer.limiter.borrowed_tokens) or self._engine.reading

    async def serve(
        self,
        *,
        stopping: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Write, sweep and listen to other processes until `stopping`."""
        async with self._opened(), trio.open_nursery() as writing:
            await writing.start(self._writer.serve)
            self._known.look_again()
            await self._announce()
            async with trio.open_nursery() as nursery:
                self._upkeep.start(nursery)
                nursery.start_soon(self._acknowledgements.flush)
                task_status.started()
                await stopping.wait()
                nursery.cancel_scope.cancel()
            self._writer.close()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        try:
            await patiently(self._engine.patience, partial(self._engine.open, self.now()))
        except Locked as error:
            raise CannotOpen(str(error)) from error
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._engine.close)

    async def _announce(self) -> None:
        """Let the other processes know of this one."""
        await self._writer.do(nothing, durable=False)
        self._notify_others()

    def _committed(self, committed: Committed) -> None:
        if self._known.committed(committed):
            self._notify_others()

    def _notify_others(self) -> None:
        if not self._engine.notify(self._known.others):
            self._acknowledgements.add_once(evict_ended)

    async def _read(self, query: Query[Result]) -> Result:
        if self._engine.private:
            return await self._writer.do(query, durable=False)
        return await self._engine.read(query)

    # Nodes

    async def create_node(self, ping_interval: float, public_key: bytes = b"") -> int:
        """See `State`."""
        now, interval = self.now(), rules.bounded_interval(ping_interval)
        heartbeat = pinged(now + interval, interval)
        return await self._writer.do(
            lambda tx: tx.create_node(heartbeat, public_key, now, self.limits)
        )

    async def create_simulated_node(self) -> int:
        """See `State`."""
        now = self.now()
        heartbeat = Heartbeat(now + HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT)
        return await self._writer.do(
            lambda tx: tx.create_simulated_node(heartbeat, now, self.limits)
        )

    async def node_of_key(self, public_key: bytes) -> int | None:
        """See `State`."""
        return await self._read(lambda db: db.node_of_key(public_key))

    async def bind_node(self, node_id: int, public_key: bytes, *, readmit: bool) -> Admission:
        """See `State`."""
        if self._known.is_bound(node_id, public_key):
            return Admission.KNOWN
        now = self.now()
        return await self._writer.do(
            lambda tx: tx.bind_node(node_id, public_key, now, self.limits, readmit=readmit)
        )

    async def delete_node(self, node_id: int) -> bool:
        """See `State`."""
        if node_id == ANONYMOUS:
            return False
        now = self.now()
        return await self._writer.do(lambda tx: tx.delete_node(node_id, now))

    async def ping(self, node_id: int, ping_interval: float, *, readmit: bool) -> Admission:
        """See `State`."""
        interval = rules.bounded_interval(ping_interval)
        until = self._heartbeats.end_of_ping(node_id, self.now(), interval)
        if self._heartbeats.knows(node_id):
            self._heartbeats.ping(node_id, until, interval)
            return Admission.KNOWN
        return await self._admit(node_id, pinged(until, interval), readmit=readmit)

    async def heartbeat(self, node_id: int, *, readmit: bool) -> Admission:
        """See `State`."""
        self._waiting.pulls.replace(node_id)
        until = self.now() + HEARTBEAT_TIMEOUT
        if self._heartbeats.knows(node_id):
            self._heartbeats.extend(node_id, until)
            admission = Admission.KNOWN
        else:
            admission = await self._admit(node_id, Heartbeat(until), readmit=readmit)
        if admission is not Admission.UNKNOWN:
            await self._end_pulls_elsewhere(node_id)
        return admission

    async def _end_pulls_elsewhere(self, node_id: int) -> None:
        if self._known.pulls_elsewhere(node_id):
            try:
                await self._writer.do(lambda tx: tx.pulled(node_id), durable=False)
            except StateUnavailable:
                return
        self._known.pulls_here(node_id)

    async def _admit(self, node_id: int, heartbeat: Heartbeat, *, readmit: bool) -> Admission:
        if node_id == ANONYMOUS:
            return Admission.UNKNOWN
        now = self.now()
        return await self._writer.do(
            lambda tx: tx.admit_node(node_id, heartbeat, now, self.limits, readmit=readmit)
        )

    @contextmanager
    def attend(self, node_id: int) -> Iterator[None]:
        """See `State`."""
        self._heartbeats.attend(node_id, self.now())
        broken = False
        try:
            yield
        except trio.Cancelled:
            broken = True
            raise
        finally:
            if self._heartbeats.leave(node_id) and broken:
                self._heartbeats.shorten(node_id, self.now() + COME_BACK)
            else:
                self._heartbeats.extend(node_id, self.now() + HEARTBEAT_TIMEOUT)

    async def online_nodes(self, run_id: int) -> Sequence[int]:
        """See `State`."""
        alive, now = self._heartbeats.alive(), self.now()
        return await self._read(lambda db: db.online_nodes(run_id, alive, now))

    # Runs

    async def create_run(self, run: Run, fab: Fab | None = None) -> int:
        """See `State`."""
        return await self._writer.do(lambda tx: tx.create_run(run, fab, self.limits))

    async def get_run(self, run_id: int) -> Run | None:
        """See `State`."""
        return await self._read(lambda db: db.get_run(run_id))

    async def get_fab(self, fab_hash: str) -> Fab | None:
        """See `State`."""
        return await self._read(lambda db: db.get_fab(fab_hash))

    # From the driver to the nodes

    async def store_task_ins(self, tasks: Sequence[Task]) -> Sequence[str]:
        """See `State`."""
        digests = await digests_of(tasks, above=self._engine.largest_inline)
        return await self._writer.do(lambda tx: tx.store_task_ins(tasks, digests, self.limits))

    async def await_task_ins(self, node_id: int) -> bool:
        """See `State`."""
        while await self._is_registered(node_id):
            with self._waiting.pulls.at(node_id) as place:
                has_task = not self._known.has_none(node_id) and await self._has_task(node_id)
                if not has_task:
                    await place.woken.wait()
            if place.replaced:
                return False
            if has_task or node_id == ANONYMOUS or self._heartbeats.knows(node_id):
                return True
        return False

    async def _is_registered(self, node_id: int) -> bool:
        if node_id == ANONYMOUS or self._heartbeats.knows(node_id):
            return True
        return await self._writer.do(lambda tx: tx.is_registered(node_id), durable=False)

    async def _has_task(self, node_id: int) -> bool:
        now = self.now()
        return await self._writer.do(lambda tx: tx.has_task(node_id, now), durable=False)

    def arrivals(self, node_ids: Collection[int]) -> AbstractContextManager[Arrivals]:
        """See `State`."""
        return self._waiting.arrivals(node_ids, self._count_queued)

    async def _count_queued(self) -> Mapping[int, int]:
        now = self.now()
        return await self._read(lambda db: db.count_queued(now))

    async def take_task_ins(self, node_id: int, connection: str = "") -> Task | None:
        """See `State`."""
        if self._known.cannot_take(node_id, connection):
            return None
        try:
            task = await self._take_task_ins(node_id, connection)
        except BaseException:
            # Who waited and was woken for it may be this call: the task is another's then.
            self._waiting.pulls.wake_one(node_id)
            raise
        if task is not None:
            self._waiting.pulls.wake_one(node_id)
        return task

    async def _take_task_ins(self, node_id: int, connection: str) -> Task | None:
        while True:
            taken = await self._take_oldest(node_id, connection, self.now())
            if taken is None:
                return None
            content = taken.content
            if content is None:
                content = await self._read_large(taken)
            if content is not None:
                return taken.complete(content)

    async def _take_oldest(self, node_id: int, connection: str, now: float) -> Taken | None:
        return await self._writer.do(
            lambda tx: tx.take_task_ins(node_id, connection, now), durable=False
        )

    async def _read_large(self, taken: Taken) -> bytes | TaskError | None:
        try:
            return await self._read(lambda db: db.read_task(taken.task.task_id))
        except BaseException:
            with acknowledging():
                await self.put_back_task_ins(taken.task)
            raise

    async def confirm_task_ins(self, task: Task) -> None:
        """See `State`."""
        now = self.now()
        await self._acknowledgements.perform(lambda tx: tx.confirm_task_ins(task, now))

    async def put_back_task_ins(self, task: Task) -> None:
        """See `State`."""
        await self._acknowledgements.perform(lambda tx: tx.put_back_task_ins(task))

    # From the nodes to the driver

    async def store_task_res(self, task: Task) -> str:
        """See `State`."""
        now = self.now()
        return await self._writer.do(lambda tx: tx.store_task_res(task, now, self.limits))

    async def store_error(self, task_id: str, error: TaskError, *, producer: int | None) -> bool:
        """See `State`."""
        now = self.now()
        return await self._writer.do(lambda tx: tx.store_error(task_id, error, producer, now))

    async def await_task_res(
        self,
        task_ids: Collection[str],
        enough: int,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        """See `State`."""
        gathering = Gathering(task_ids, enough, progress)
        while not gathering.done:
            gathering = Gathering(task_ids, enough, progress)
            with self._waiting.drivers.joined(gathering):
                survey = await self._survey(task_ids)
                gathering.settle(survey.settled)
                with trio.move_on_after(max(0.001, survey.changes_at - self.now())):
                    await gathering.over.wait()

    async def _survey(self, task_ids: Collection[str]) -> rules.Survey:
        alive, now = self._heartbeats.alive(), self.now()
        return await self._read(lambda db: db.survey(task_ids, alive, now))

    async def take_task_res(self, task_ids: Collection[str], limit: int) -> Sequence[Task]:
        """See `State`."""
        # The heartbeats are written by the same commit: attended nodes are all that is missing.
        alive = Alive(attended=self._heartbeats.alive().attended)
        now = self.now()
        taken = await self._writer.do(
            lambda tx: tx.take_task_res(task_ids, limit, alive, now), durable=False
        )
        try:
            return [await self._complete(answer) for answer in taken]
        except BaseException:
            with acknowledging():
                await self.put_back_task_res([answer.task for answer in taken])
            raise

    async def _complete(self, taken: Taken) -> Task:
        content = taken.content
        if content is None:
            content = await self._read(lambda db: db.read_answer(taken.task.task_id))
        return taken.complete(content)

    async def confirm_task_res(self, answers: Sequence[Task]) -> None:
        """See `State`."""
        await self._acknowledgements.perform(lambda tx: tx.confirm_task_res(answers))
        self._upkeep.collected()

    async def put_back_task_res(self, answers: Sequence[Task]) -> None:
        """See `State`."""
        await self._acknowledgements.perform(lambda tx: tx.put_back_task_res(answers))

    async def census(self) -> Census:
        """See `State`."""
        alive, now = self._heartbeats.alive(), self.now()
        return await self._read(lambda db: db.census(alive, now))
