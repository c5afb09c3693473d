"""The Driver API: a driver script opens runs, asks nodes for work and collects the answers.

Drivers of Flower 1.8 to 1.11 do not retry: an error status ends their run. So only what cannot
become right by itself is an error here; what can is waited for (`outages`).
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import attrs

from superlink_trio.driver.outages import patient, through_outages
from superlink_trio.logs.context import note
from superlink_trio.logs.throttle import Throttle, shorten
from superlink_trio.logs.wording import counted
from superlink_trio.rounds import Rounds
from superlink_trio.rounds import tasks as following
from superlink_trio.rpc import (
    Api,
    Caller,
    Holds,
    Refused,
    Status,
    Unary,
    malformed,
    parse,
    unary,
    with_refusals,
)
from superlink_trio.rpc.patience import Patience
from superlink_trio.state import State
from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.bulk import in_thread_if_large, join
from superlink_trio.wire.runs import Fab, read_run, write_fab, write_run
from superlink_trio.wire.splice import Malformed
from superlink_trio.wire.tasks import (
    Draft,
    Task,
    accept,
    faults,
    read_push_task_ins,
    timestamp,
    write_pull_task_res,
)

_log = logging.getLogger(__name__)

# Invalid items of one push that are named in the refusal: it has to fit into a gRPC trailer.
_MOST_NAMED = 10

# Lines a minute about the runs of one host.
_MOST_LINES = 100
_LONGEST_ID = 200


def driver_api(
    state: State, *, hold: Callable[[], float], message_limit: int, rounds: Rounds
) -> Api:
    """Make the Driver API over a state.

    `hold` gives the seconds for which PullTaskRes waits until every answer is there, or, from the
    first one on, until none follows for a moment. `message_limit`: the transport's limit of one
    message in bytes; answers are given in portions below it. `rounds` is told what moves.
    """
    holds = Holds()
    driver = _Driver(
        state=state, hold=hold, message_limit=message_limit, holds=holds, rounds=rounds
    )
    calls: Mapping[str, Unary] = {
        "CreateRun": unary(pb.CreateRunRequest, driver.create_run),
        "GetNodes": unary(pb.GetNodesRequest, driver.get_nodes),
        "PushTaskIns": driver.push_task_ins,
        "GetRun": unary(pb.GetRunRequest, driver.get_run),
        "GetFab": unary(pb.GetFabRequest, driver.get_fab),
    }
    api = Api(
        service="flwr.proto.Driver",
        unary={name: patient(call, holds) for name, call in calls.items()},
        leased={"PullTaskRes": driver.pull_task_res},
        holds=holds,
    )
    return with_refusals(api)


@attrs.frozen(kw_only=True)
class _Driver:
    state: State
    hold: Callable[[], float]
    message_limit: int
    holds: Holds
    rounds: Rounds
    throttle: Throttle = attrs.field(factory=lambda: Throttle(_log, burst=_MOST_LINES))

    async def create_run(
        self, request: pb.CreateRunRequest, caller: Caller
    ) -> pb.CreateRunResponse:
        fab = _read_fab(request.fab) if request.HasField("fab") else None
        run = attrs.evolve(read_run(request), fab_hash="" if fab is None else fab.hash)
        run_id = await self.state.create_run(run, fab)
        note(run_id=run_id)
        self.throttle.log(
            logging.INFO,
            caller.host,
            "Run %d created",
            run_id,
            extra={"run_id": run_id, "fab_id": shorten(run.fab_id, _LONGEST_ID)},
        )
        return pb.CreateRunResponse(run_id=run_id)

    async def get_nodes(self, request: pb.GetNodesRequest, _: Caller) -> pb.GetNodesResponse:
        node_ids = await self.state.online_nodes(request.run_id)
        return pb.GetNodesResponse(nodes=[pb.Node(node_id=node_id) for node_id in node_ids])

    async def get_run(self, request: pb.GetRunRequest, _: Caller) -> pb.GetRunResponse:
        run = await self.state.get_run(request.run_id)
        if run is None:
            raise Refused(Status.NOT_FOUND, f"run {request.run_id} is not known")
        return pb.GetRunResponse(run=write_run(run))

    async def get_fab(self, request: pb.GetFabRequest, _: Caller) -> pb.GetFabResponse:
        fab = await self.state.get_fab(request.hash_str)
        if fab is None:
            raise Refused(Status.NOT_FOUND, f"no app bundle has the hash {request.hash_str!r}")
        return pb.GetFabResponse(fab=write_fab(fab))

    async def push_task_ins(self, raw: bytes, caller: Caller) -> bytes:
        try:
            drafts = await in_thread_if_large(len(raw), read_push_task_ins, raw)
        except Malformed:
            raise malformed(pb.PushTaskInsRequest) from None
        tasks = self._accept(drafts)
        note(run_id=tasks[0].run_id, round=tasks[0].group_id, tasks=len(tasks))
        task_ids = await self.state.store_task_ins(tasks)
        self._note(tasks, task_ids, caller)
        return pb.PushTaskInsResponse(task_ids=task_ids).SerializeToString()

    def _accept(self, drafts: list[Draft]) -> list[Task]:
        if not drafts:
            raise Refused(Status.INVALID_ARGUMENT, "task_ins_list is empty: push at least one")
        now = self.state.now()
        tasks: list[Task] = []
        wrong: list[str] = []
        for index, draft in enumerate(drafts):
            found = faults(draft)
            if not found:
                tasks.append(accept(draft, pushed_at=now))
                if tasks[-1].size > self.message_limit:
                    found = ["the task is too large to be handed to a node in one message"]
            if found:
                wrong.append(f"task_ins_list[{index}]: {', '.join(found)}")
        if wrong:
            more = len(wrong) - _MOST_NAMED
            rest = [f"and {counted(more, 'more item')}"] if more > 0 else []
            raise Refused(Status.INVALID_ARGUMENT, "; ".join([*wrong[:_MOST_NAMED], *rest]))
        return tasks

    def _note(self, tasks: Sequence[Task], task_ids: Sequence[str], caller: Caller) -> None:
        pairs = list(zip(tasks, task_ids, strict=True))
        self.rounds.sent(following.asked(task for task, task_id in pairs if task_id))
        refused = Counter(task.run_id for task, task_id in pairs if not task_id)
        for run_id, count in refused.items():
            self.throttle.log(
                logging.WARNING,
                caller.host,
                "Run %d is not known: %s for it refused",
                *(run_id, counted(count, "task")),
            )

    @asynccontextmanager
    async def pull_task_res(self, raw: bytes, _: Caller) -> AsyncIterator[bytes]:
        request = parse(pb.PullTaskResRequest, raw)
        task_ids = _task_ids(request.task_ids)
        answers = await through_outages(self.holds, partial(self._take, task_ids))
        if answers:
            note(run_id=answers[0].run_id, round=answers[0].group_id)
        note(asked=len(task_ids), answers=len(answers))
        async with self.state.handing_over_task_res(answers):
            parts = write_pull_task_res(answers, timestamp(self.state.now()))
            yield await join(parts)
        self.rounds.collected(following.answered(answers))

    async def _take(self, task_ids: Sequence[str]) -> Sequence[Task]:
        with self.holds.open(self.hold()) as scope:
            # A quarter of the limit is worth an answer; what comes after it can be underway
            # while the driver unpacks.
            enough = self.message_limit // 4
            patience = Patience(scope, len(task_ids))
            await self.state.await_task_res(task_ids, enough, patience.note)
        return await self.state.take_task_res(task_ids, limit=self.message_limit)


def _read_fab(fab: pb.Fab) -> Fab:
    actual = hashlib.sha256(fab.content).hexdigest()
    if fab.hash_str != actual:
        raise Refused(
            Status.INVALID_ARGUMENT,
            f"the fab's content has the SHA-256 {actual}, not {fab.hash_str!r}: send it again",
        )
    return Fab(hash=actual, content=fab.content)


def _task_ids(texts: Collection[str]) -> list[str]:
    """Check the ids asked for; "" is what a refused push was answered with, and asks nothing."""
    wrong = [text for text in texts if text and not _is_uuid(text)]
    if wrong:
        raise Refused(Status.INVALID_ARGUMENT, f"task_ids: {wrong[0][:64]!r} is no UUID")
    return [text for text in dict.fromkeys(texts) if text]


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
