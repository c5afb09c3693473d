"""`DurableState`: the contract, kept by steps, caches and those who wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import TypeVar

import attrs
import trio

from superlink_trio.state import rules
from superlink_trio.state.arrivals import Arrivals
from superlink_trio.state.census import Census
from superlink_trio.state.durable.engine import (
    Committed,
    Engine,
    Locked,
    Queries,
    Query,
    Result,
    Step,
    Taken,
    Transaction,
    patiently,
)
from superlink_trio.state.durable.heartbeats import Alive, Heartbeat, pinged
from superlink_trio.state.durable.known import Known
from superlink_trio.state.durable.upkeep import Acknowledgements, Upkeep, evict_ended, nothing
from superlink_trio.state.durable.writer import Writer
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

Tx = TypeVar("Tx", bound=Queries)


class DurableState(State):
    """State in a database, which other processes may use as well."""

    def __init__(self, engine: Engine, *, clock: Clock, limits: StateLimits) -> None:
        super().__init__(clock=clock, limits=limits)
        self._engine = engine
        self._known = Known(clock)
        self._heartbeats = self._known.heartbeats
        self._waiting = self._known.waiting
        self._writer: Writer[Transaction] = Writer(
            engine, self._heartbeats, self._committed, engine.patience
        )
        self._acknowledgements = Acknowledgements(self._writer)
        self._listeners: list[Callable[[Committed], None]] = []
        self._upkeep = Upkeep(engine, partial(self.write, durable=False), self._heartbeats, clock)

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
        writer = self._writer
        return Work(writer.commits, writer.steps, self._upkeep.sweeps, writer.commit_age)

    @property
    def busy(self) -> bool:
        """Whether a worker thread is at work on the database."""
        return bool(self._writer.limiter.borrowed_tokens) or self._engine.reading

    @property
    def shares_messages(self) -> bool:
        """Whether several processes may serve nodes, runs and messages of 1.23 and later."""
        return self._engine.shares_messages

    @property
    def has_others(self) -> bool:
        """Whether there are other processes over the database, as of the last commit."""
        return bool(self._known.others)

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
                nursery.start_soon(self._writer.watch)
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
        for listener in self._listeners:
            listener(committed)

    def subscribe(self, listener: Callable[[Committed], None]) -> None:
        """Let `listener` know of what came of every commit, in order.

        It is called before any task goes on that waited for the commit.
        """
        self._listeners.append(listener)

    def _notify_others(self) -> None:
        if not self._engine.notify(self._known.others):
            self._acknowledgements.add_once(evict_ended)

    async def write(self, step: Step[Result], *, durable: bool = True) -> Result:
        """Perform a step and give its result once it is committed; see `Writer.do`."""
        return await self._writer.do(self._as_of_now(step), durable=durable)

    async def _acknowledge(self, step: Step[None]) -> None:
        await self._acknowledgements.perform(self._as_of_now(step))

    async def read(self, query: Query[Result]) -> Result:
        """Ask the database beside the commits. Raises StateUnavailable."""
        query = self._as_of_now(query)
        if self._engine.private:
            return await self._writer.do(query, durable=False)
        return await self._engine.read(query)

    def _as_of_now(self, step: Callable[[Tx], Result]) -> Callable[[Tx], Result]:
        """Let a step see the time and the limits of its call: the clock is for this thread only."""
        now, limits = self.now(), self.limits

        def step_as_of_then(tx: Tx) -> Result:
            tx.now, tx.limits = now, limits
            return step(tx)

        return step_as_of_then

    # Nodes

    async def create_node(self, ping_interval: float, public_key: bytes = b"") -> int:
        interval = rules.bounded_interval(ping_interval)
        heartbeat = pinged(self.now() + interval, interval)
        return await self.write(lambda tx: tx.create_node(heartbeat, public_key))

    async def create_simulated_node(self) -> int:
        heartbeat = Heartbeat(self.now() + HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT)
        return await self.write(lambda tx: tx.create_simulated_node(heartbeat))

    async def node_of_key(self, public_key: bytes) -> int | None:
        return await self.read(lambda db: db.node_of_key(public_key))

    async def bind_node(self, node_id: int, public_key: bytes, *, readmit: bool) -> Admission:
        if self._known.is_bound(node_id, public_key):
            return Admission.KNOWN
        return await self.write(lambda tx: tx.bind_node(node_id, public_key, readmit=readmit))

    async def delete_node(self, node_id: int) -> bool:
        return node_id != ANONYMOUS and await self.write(lambda tx: tx.delete_node(node_id))

    async def ping(self, node_id: int, ping_interval: float, *, readmit: bool) -> Admission:
        interval = rules.bounded_interval(ping_interval)
        until = self._heartbeats.end_of_ping(node_id, self.now(), interval)
        if self._heartbeats.knows(node_id):
            self._heartbeats.ping(node_id, until, interval)
            return Admission.KNOWN
        return await self._admit(node_id, pinged(until, interval), readmit=readmit)

    async def heartbeat(self, node_id: int, *, readmit: bool) -> Admission:
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
                await self.write(lambda tx: tx.pulled(node_id), durable=False)
            except StateUnavailable:
                return
        self._known.pulls_here(node_id)

    async def _admit(self, node_id: int, heartbeat: Heartbeat, *, readmit: bool) -> Admission:
        if node_id == ANONYMOUS:
            return Admission.UNKNOWN
        return await self.write(lambda tx: tx.admit_node(node_id, heartbeat, readmit=readmit))

    @contextmanager
    def attend(self, node_id: int) -> Iterator[None]:
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
        alive = self._heartbeats.alive()
        return await self.read(lambda db: db.online_nodes(run_id, alive))

    # Runs

    async def create_run(self, run: Run, fab: Fab | None = None) -> int:
        return await self.write(lambda tx: tx.create_run(run, fab))

    async def get_run(self, run_id: int) -> Run | None:
        return await self.read(lambda db: db.get_run(run_id))

    async def get_fab(self, fab_hash: str) -> Fab | None:
        return await self.read(lambda db: db.get_fab(fab_hash))

    # From the driver to the nodes

    async def store_task_ins(self, tasks: Sequence[Task]) -> Sequence[str]:
        digests = await digests_of(tasks, above=self._engine.largest_inline)
        return await self.write(lambda tx: tx.store_task_ins(tasks, digests))

    async def await_task_ins(self, node_id: int) -> bool:
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
        return await self.write(lambda tx: tx.is_registered(node_id), durable=False)

    async def _has_task(self, node_id: int) -> bool:
        return await self.write(lambda tx: tx.has_task(node_id), durable=False)

    def arrivals(self, node_ids: Collection[int]) -> AbstractContextManager[Arrivals]:
        return self._waiting.arrivals(node_ids, lambda: self.read(lambda db: db.count_queued()))

    async def take_task_ins(self, node_id: int, connection: str = "") -> Task | None:
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
            taken = await self.write(
                lambda tx: tx.take_task_ins(node_id, connection), durable=False
            )
            if taken is None:
                return None
            content = taken.content
            if content is None:
                content = await self._read_large(taken)
            if content is not None:
                return attrs.evolve(taken.task, content=content)

    async def _read_large(self, taken: Taken) -> bytes | TaskError | None:
        try:
            return await self.read(lambda db: db.read_task(taken.task.task_id))
        except BaseException:
            with acknowledging():
                await self.put_back_task_ins(taken.task)
            raise

    async def confirm_task_ins(self, task: Task) -> None:
        await self._acknowledge(lambda tx: tx.confirm_task_ins(task))

    async def put_back_task_ins(self, task: Task) -> None:
        await self._acknowledge(lambda tx: tx.put_back_task_ins(task))

    # From the nodes to the driver

    async def store_task_res(self, task: Task) -> str:
        return await self.write(lambda tx: tx.store_task_res(task))

    async def store_error(self, task_id: str, error: TaskError, *, producer: int | None) -> bool:
        return await self.write(lambda tx: tx.store_error(task_id, error, producer))

    async def await_task_res(
        self,
        task_ids: Collection[str],
        enough: int,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        await self._waiting.drivers.wait(task_ids, enough, progress, self._survey)

    async def _survey(self, task_ids: Collection[str]) -> rules.Survey:
        alive = self._heartbeats.alive()
        return await self.read(lambda db: db.survey(task_ids, alive))

    async def take_task_res(self, task_ids: Collection[str], limit: int) -> Sequence[Task]:
        # The heartbeats are written by the same commit: attended nodes are all that is missing.
        alive = Alive(attended=self._heartbeats.alive().attended)
        taken = await self.write(lambda tx: tx.take_task_res(task_ids, limit, alive), durable=False)
        try:
            return [await self._complete(answer) for answer in taken]
        except BaseException:
            with acknowledging():
                await self.put_back_task_res([answer.task for answer in taken])
            raise

    async def _complete(self, taken: Taken) -> Task:
        content = taken.content
        if content is None:
            content = await self.read(lambda db: db.read_answer(taken.task.task_id))
        return attrs.evolve(taken.task, content=content)

    async def confirm_task_res(self, answers: Sequence[Task]) -> None:
        await self._acknowledge(lambda tx: tx.confirm_task_res(answers))
        self._upkeep.collected()

    async def put_back_task_res(self, answers: Sequence[Task]) -> None:
        await self._acknowledge(lambda tx: tx.put_back_task_res(answers))

    async def census(self) -> Census:
        alive = self._heartbeats.alive()
        return await self.read(lambda db: db.census(alive))
