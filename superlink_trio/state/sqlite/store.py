"""`SqliteState`: the contract, kept by steps, caches and those who wait."""

from __future__ import annotations

import math
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TypeVar

import trio

from superlink_trio.state.arrivals import Arrivals
from superlink_trio.state.gatherings import Gathering
from superlink_trio.state.interface import (
    COME_BACK,
    HEARTBEAT_TIMEOUT,
    Admission,
    CannotOpen,
    Clock,
    State,
    StateUnavailable,
    acknowledging,
)
from superlink_trio.state.limits import NO_LIMITS, StateLimits
from superlink_trio.state.payloads import digests_of
from superlink_trio.state.rules import Survey, bounded_interval
from superlink_trio.state.sqlite import nodes, presence, runs, sweeping, task_ins, task_res
from superlink_trio.state.sqlite.committing import Committed, Committer
from superlink_trio.state.sqlite.faults import Locked, patiently
from superlink_trio.state.sqlite.heartbeats import WRITE_BEHIND, Heartbeats
from superlink_trio.state.sqlite.nodes import Alive, Beat
from superlink_trio.state.sqlite.opening import Database, Opened, look, open_database
from superlink_trio.state.sqlite.presence import Presence
from superlink_trio.state.sqlite.readers import Readers
from superlink_trio.state.sqlite.task_ins import INLINE, Taken
from superlink_trio.state.sqlite.transaction import Change, Kind, Step, Transaction
from superlink_trio.state.sqlite.writer import Writer
from superlink_trio.state.waiting import Waiting
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError

Result = TypeVar("Result")

PATIENCE = 10.0
"""Seconds; the longest commit of another process, a large model's, is shorter."""

_SWEEP_EVERY = 60.0
_RENEW_EVERY = HEARTBEAT_TIMEOUT / 3
_SAY_AGAIN_AFTER = 1.0

# What was sent has arrived by then, or never will.
_PURGE_AFTER = 1.0

# Another process tells when it changes something. Where it cannot, time has to: it was killed just
# before, or our socket is out of its sight.
_LOOK_AFTER = 2.0


class SqliteState(State):
    """State in one SQLite file, or in a database in memory (`:memory:`).

    `patience`: seconds for which another program's lock on the file is waited for, before calls
    are refused. `max_bytes`: what the file may grow to, before what would let it grow is refused.
    """

    def __init__(
        self,
        database: str,
        *,
        clock: Clock = time.time,
        limits: StateLimits = NO_LIMITS,
        patience: float = PATIENCE,
        max_bytes: float = math.inf,
    ) -> None:
        super().__init__(clock=clock, limits=limits)
        self._database = Database(database, patience, max_bytes)
        self._heartbeats = Heartbeats()
        self._waiting = Waiting()
        # Nodes for which nothing can be taken, and over which connection (None: over any).
        self._quiet: dict[int, str | None] = {}
        # Nodes that have pulled from no other process since they pulled from this one.
        self._pulled_here: set[int] = set()
        # Nodes of which it is certain that they are bound to a key.
        self._keys: dict[int, bytes] = {}
        self._writer = Writer(self._heartbeats, self._hear, patience)
        self._readers = Readers(self._database)
        self._others: Sequence[str] = ()
        self._presence: Presence | None = None
        self._owed: deque[Step[None]] = deque()
        self._owing = trio.Event()
        self._collected = trio.Event()

    @property
    def commits(self) -> int:
        """How many transactions were committed."""
        return self._writer.commits

    @property
    def steps(self) -> int:
        """How many steps they held."""
        return self._writer.steps

    @property
    def busy(self) -> bool:
        """Whether a worker thread is at work on the file."""
        return bool(self._writer.limiter.borrowed_tokens or self._readers.limiter.borrowed_tokens)

    async def serve(
        self,
        *,
        stopping: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Write, sweep and listen to other processes until `stopping`."""
        async with self._opened() as opened, trio.open_nursery() as writing:
            await writing.start(self._writer.serve, opened)
            self._look_again()
            await self._greet_others()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_heartbeats)
                nursery.start_soon(self._renew_heartbeats)
                nursery.start_soon(self._sweep)
                nursery.start_soon(self._say_owed)
                nursery.start_soon(self._purge)
                nursery.start_soon(self._listen)
                task_status.started()
                await stopping.wait()
                nursery.cancel_scope.cancel()
            self._writer.close()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Committer]:
        try:
            opened = await patiently(self._database.patience, partial(self._open, self.now()))
        except Locked as error:
            raise CannotOpen(str(error)) from error
        committer = Committer(self._database, opened, self._presence)
        self._readers.open(opened.identity)
        try:
            yield committer
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._close, committer)

    def _open(self, now: float) -> Opened:
        name = ""
        look(self._database)
        if not self._database.in_memory:
            self._database.create()
            self._presence = Presence(self._database.path)
            name = self._presence.name
        try:
            return open_database(self._database, name, now)
        except BaseException:
            self._leave()
            raise

    def _close(self, committer: Committer) -> None:
        self._readers.close()
        committer.close()
        self._leave()

    def _leave(self) -> None:
        if self._presence is not None:
            self._presence.close()
            self._presence = None

    # What a commit tells

    def _hear(self, committed: Committed) -> None:
        self._others = committed.others
        if committed.missed_news:
            self._look_again()
        own = [change for performed in committed.performed for change in performed.changes]
        for change in (*committed.news, *own):
            self._note(change)
        if any(change.concerns_others for change in own):
            self._tell_others()

    def _note(self, change: Change) -> None:
        match change.kind:
            case Kind.QUEUED:
                self._quiet.pop(change.key, None)
                self._waiting.notify_queued(change.key)
            case Kind.HANDED_OVER:
                self._quiet.pop(change.key, None)
            case Kind.QUIET:
                self._quiet[change.key] = change.value
            case Kind.SETTLED:
                self._waiting.drivers.settle(change.key, change.value)
            case Kind.KNOWN:
                self._heartbeats.meet(change.key, change.value)
            case Kind.BOUND:
                self._keys[change.key] = change.value
            case Kind.PULLED:
                self._pulled_here.discard(change.key)
                self._waiting.pulls.replace(change.key)
            case Kind.GONE:
                self._quiet.pop(change.key, None)
                self._keys.pop(change.key, None)
                self._pulled_here.discard(change.key)
                self._heartbeats.forget(change.key)
                self._waiting.pulls.wake_all(change.key)
                self._waiting.drivers.look_again()

    def _look_again(self) -> None:
        self._quiet.clear()
        self._keys.clear()
        self._pulled_here.clear()
        self._heartbeats.forget_all()
        self._waiting.look_again()

    def _tell_others(self) -> None:
        if self._presence is None or self._presence.notify(self._others):
            return
        if self._bury not in self._owed:
            self._owe(self._bury)

    def _bury(self, tx: Transaction) -> None:
        for process, name in sweeping.others(tx.connection, tx.me):
            if not presence.is_alive(self._database.path, name):
                sweeping.lapse(tx, [process])
                presence.forget(self._database.path, name)

    async def _greet_others(self) -> None:
        await self._writer.do(_nothing, durable=False)
        self._tell_others()

    async def _listen(self) -> None:
        if self._presence is None:
            return
        while True:
            with trio.move_on_after(_LOOK_AFTER):
                await self._presence.next_notice()
            with suppress(StateUnavailable):
                await self._writer.do(self._bury, durable=False)

    # What has to be said even if the file is not available now

    async def _say(self, step: Step[None]) -> None:
        try:
            await self._writer.do(step, durable=False, patience=0.0)
        except StateUnavailable:
            self._owe(step)
        except trio.Cancelled:
            self._owe(step)
            raise

    def _owe(self, step: Step[None]) -> None:
        self._owed.append(step)
        self._owing.set()

    async def _say_owed(self) -> None:
        while True:
            if not self._owed:
                self._owing = trio.Event()
            await self._owing.wait()
            try:
                await self._writer.do(self._owed[0], durable=False)
                self._owed.popleft()
            except StateUnavailable:
                await trio.sleep(_SAY_AGAIN_AFTER)

    # The store's own tasks

    async def _write_heartbeats(self) -> None:
        while True:
            await self._heartbeats.wait()
            await trio.sleep(WRITE_BEHIND)
            with suppress(StateUnavailable):
                await self._writer.do(_nothing, durable=False)

    async def _renew_heartbeats(self) -> None:
        while True:
            await trio.sleep(_RENEW_EVERY)
            self._heartbeats.renew(self.now())

    async def _purge(self) -> None:
        while True:
            await self._collected.wait()
            self._collected = trio.Event()
            await trio.sleep(_PURGE_AFTER)
            try:
                while await self._writer.do(task_res.purge, durable=False):
                    pass
                more = await self._writer.do(task_res.age, durable=False)
            except StateUnavailable:
                more = True
            if more:
                self._collected.set()

    async def _sweep(self) -> None:
        while True:
            with suppress(StateUnavailable):
                sweep = partial(sweeping.sweep, now=self.now(), most_nodes=self.limits.nodes)
                for step in (sweep, sweeping.give_back_space):
                    while await self._writer.do(step, durable=False):
                        pass
            await trio.sleep(_SWEEP_EVERY)

    async def _read(self, query: Callable[[sqlite3.Connection], Result]) -> Result:
        if self._database.in_memory:
            # A database in memory belongs to one connection: the writer's.
            return await self._writer.do(lambda tx: query(tx.connection), durable=False)
        return await self._readers.read(query)

    # Nodes

    async def create_node(self, ping_interval: float, public_key: bytes = b"") -> int:
        """See `State`."""
        now, interval = self.now(), bounded_interval(ping_interval)
        return await self._writer.do(
            partial(
                nodes.create,
                beat=nodes.pinged(now + interval, interval),
                public_key=public_key,
                now=now,
                limits=self.limits,
            )
        )

    async def create_simulated_node(self) -> int:
        """See `State`."""
        now = self.now()
        beat = Beat(now + HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT)
        step = partial(nodes.create_simulated, beat=beat, now=now, limits=self.limits)
        return await self._writer.do(step)

    async def node_of_key(self, public_key: bytes) -> int | None:
        """See `State`."""
        return await self._read(partial(nodes.of_key, public_key=public_key))

    async def bind_node(self, node_id: int, public_key: bytes, *, readmit: bool) -> Admission:
        """See `State`."""
        if self._keys.get(node_id) == public_key:
            return Admission.KNOWN
        return await self._writer.do(
            partial(
                nodes.bind,
                node_id=node_id,
                public_key=public_key,
                now=self.now(),
                readmit=readmit,
                limits=self.limits,
            )
        )

    async def delete_node(self, node_id: int) -> bool:
        """See `State`."""
        if node_id == ANONYMOUS:
            return False
        return await self._writer.do(partial(nodes.delete, node_id=node_id, now=self.now()))

    async def ping(self, node_id: int, ping_interval: float, *, readmit: bool) -> Admission:
        """See `State`."""
        interval = bounded_interval(ping_interval)
        until = self._heartbeats.end_of_ping(node_id, self.now(), interval)
        if self._heartbeats.knows(node_id):
            self._heartbeats.ping(node_id, until, interval)
            return Admission.KNOWN
        return await self._admit(node_id, nodes.pinged(until, interval), readmit=readmit)

    async def heartbeat(self, node_id: int, *, readmit: bool) -> Admission:
        """See `State`."""
        self._waiting.pulls.replace(node_id)
        until = self.now() + HEARTBEAT_TIMEOUT
        if self._heartbeats.knows(node_id):
            self._heartbeats.extend(node_id, until)
            admission = Admission.KNOWN
        else:
            admission = await self._admit(node_id, Beat(until), readmit=readmit)
        if admission is not Admission.UNKNOWN:
            await self._end_pulls_elsewhere(node_id)
        return admission

    async def _end_pulls_elsewhere(self, node_id: int) -> None:
        if self._others and node_id not in self._pulled_here:
            try:
                await self._writer.do(partial(nodes.pull, node_id=node_id), durable=False)
            except StateUnavailable:
                return
        self._pulled_here.add(node_id)

    async def _admit(self, node_id: int, beat: Beat, *, readmit: bool) -> Admission:
        if node_id == ANONYMOUS:
            return Admission.UNKNOWN
        return await self._writer.do(
            partial(
                nodes.admit,
                node_id=node_id,
                beat=beat,
                now=self.now(),
                readmit=readmit,
                limits=self.limits,
            )
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
        alive = self._heartbeats.alive()
        return await self._read(partial(nodes.online, run_id=run_id, alive=alive, now=self.now()))

    # Runs

    async def create_run(self, run: Run, fab: Fab | None = None) -> int:
        """See `State`."""
        return await self._writer.do(partial(runs.create, run=run, fab=fab, limits=self.limits))

    async def get_run(self, run_id: int) -> Run | None:
        """See `State`."""
        return await self._read(partial(runs.read, run_id=run_id))

    async def get_fab(self, fab_hash: str) -> Fab | None:
        """See `State`."""
        return await self._read(partial(runs.read_fab, fab_hash=fab_hash))

    # From the driver to the nodes

    async def store_task_ins(self, tasks: Sequence[Task]) -> Sequence[str]:
        """See `State`."""
        digests = await digests_of(tasks, above=INLINE)
        step = partial(task_ins.store, tasks=tasks, digests=digests, limits=self.limits)
        return await self._writer.do(step)

    async def await_task_ins(self, node_id: int) -> bool:
        """See `State`."""
        while await self._is_registered(node_id):
            with self._waiting.pulls.at(node_id) as place:
                has_task = node_id not in self._quiet and await self._has_task(node_id)
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
        return await self._writer.do(partial(nodes.meet, node_id=node_id), durable=False)

    async def _has_task(self, node_id: int) -> bool:
        step = partial(task_ins.has_some, node_id=node_id, now=self.now())
        return await self._writer.do(step, durable=False)

    def arrivals(self, node_ids: Collection[int]) -> AbstractContextManager[Arrivals]:
        """See `State`."""
        return self._waiting.arrivals(node_ids, self._count_queued)

    async def _count_queued(self) -> Mapping[int, int]:
        return await self._read(partial(task_ins.count_queued, now=self.now()))

    async def take_task_ins(self, node_id: int, connection: str = "") -> Task | None:
        """See `State`."""
        if node_id in self._quiet and self._quiet[node_id] in (None, connection):
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
            step = partial(task_ins.take, node_id=node_id, connection=connection, now=self.now())
            taken = await self._writer.do(step, durable=False)
            if taken is None:
                return None
            content = taken.content
            if content is None:
                content = await self._read_large(taken)
            if content is not None:
                return taken.complete(content)

    async def _read_large(self, taken: Taken) -> bytes | TaskError | None:
        try:
            return await self._read(partial(task_ins.read_content, task_id=taken.task.task_id))
        except BaseException:
            with acknowledging():
                await self.put_back_task_ins(taken.task)
            raise

    async def confirm_task_ins(self, task: Task) -> None:
        """See `State`."""
        await self._say(partial(task_ins.confirm, task=task, now=self.now()))

    async def put_back_task_ins(self, task: Task) -> None:
        """See `State`."""
        await self._say(partial(task_ins.put_back, task=task))

    # From the nodes to the driver

    async def store_task_res(self, task: Task) -> str:
        """See `State`."""
        step = partial(task_res.store, answer=task, now=self.now(), limits=self.limits)
        return await self._writer.do(step)

    async def store_error(self, task_id: str, error: TaskError, *, producer: int | None) -> bool:
        """See `State`."""
        step = partial(
            task_res.store_error, asked_id=task_id, error=error, producer=producer, now=self.now()
        )
        return await self._writer.do(step)

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

    async def _survey(self, task_ids: Collection[str]) -> Survey:
        alive = self._heartbeats.alive()
        step = partial(task_res.survey, asked_ids=task_ids, alive=alive, now=self.now())
        return await self._read(step)

    async def take_task_res(self, task_ids: Collection[str], limit: int) -> Sequence[Task]:
        """See `State`."""
        # The heartbeats are written by the same commit: attended nodes are all that is missing.
        alive = Alive(attended=self._heartbeats.alive().attended)
        step = partial(task_res.take, asked_ids=task_ids, limit=limit, alive=alive, now=self.now())
        taken = await self._writer.do(step, durable=False)
        try:
            return [await self._complete(answer) for answer in taken]
        except BaseException:
            with acknowledging():
                await self.put_back_task_res([answer.task for answer in taken])
            raise

    async def _complete(self, taken: Taken) -> Task:
        content = taken.content
        if content is None:
            content = await self._read(partial(task_res.read_content, answer_id=taken.task.task_id))
        return taken.complete(content)

    async def confirm_task_res(self, answers: Sequence[Task]) -> None:
        """See `State`."""
        await self._say(partial(task_res.confirm, answers=answers))
        self._collected.set()

    async def put_back_task_res(self, answers: Sequence[Task]) -> None:
        """See `State`."""
        await self._say(partial(task_res.put_back, answers=answers))


def _nothing(_: Transaction) -> None:
    """Only bring what else belongs to a commit: heartbeats out, news in."""
