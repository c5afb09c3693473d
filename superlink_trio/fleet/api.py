"""The Fleet API: nodes join, ask for work and bring answers.

Nodes of Flower 1.8 to 1.11 repeat a call without end on any error status. So an error here means
"try again later"; a final "no" is an OK whose content says so.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from superlink_trio.fleet.presence import Presence
from superlink_trio.logs.context import note
from superlink_trio.logs.throttle import Throttle
from superlink_trio.rpc import (
    Api,
    Caller,
    Holds,
    Refused,
    Status,
    limit_in_words,
    malformed,
    parse,
    unary,
    with_refusals,
)
from superlink_trio.state import Admission, LimitReached, NotTaken, State
from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.bulk import in_thread_if_large, join
from superlink_trio.wire.runs import write_fab, write_run
from superlink_trio.wire.splice import Malformed
from superlink_trio.wire.tasks import (
    ANONYMOUS,
    Draft,
    Task,
    TaskError,
    accept,
    faults,
    read_push_task_res,
    timestamp,
    write_pull_task_ins,
)

_log = logging.getLogger(__name__)

# What the reference answers to every push: seconds after which a node may reconnect.
_RECONNECT = pb.Reconnect(reconnect=5)
# Lines a minute about nodes of one host that come and go: a whole fleet may be behind one address.
_MOST_MOVES = 1000
# What the reference answers for an answer it does not take.
_NOT_TAKEN = "None"


def fleet_api(
    state: State,
    *,
    hold: Callable[[], float],
    readmit: bool,
    message_limit: int,
    presence: Presence | None = None,
    refusals_are_final: bool = False,
) -> Api:
    """Make the Fleet API over a state.

    `hold` gives the seconds for which PullTaskIns waits for a task. `readmit`: whether a node that
    is not known is registered by its first heartbeat. `message_limit`: the transport's limit of one
    message in bytes. `presence` is told which nodes there are and what they work on.
    `refusals_are_final`: whether the transport's clients give an answer up that is refused; their
    drivers are told then.
    """
    holds = Holds()
    if presence is None:
        presence = Presence(hold, most=lambda: state.limits.nodes)
    fleet = _Fleet(
        state=state,
        readmit=readmit,
        message_limit=message_limit,
        refusals_are_final=refusals_are_final,
        holds=holds,
        presence=presence,
    )
    api = Api(
        service="flwr.proto.Fleet",
        unary={
            "CreateNode": unary(pb.CreateNodeRequest, fleet.create_node),
            "DeleteNode": unary(pb.DeleteNodeRequest, fleet.delete_node),
            "Ping": unary(pb.PingRequest, fleet.ping),
            "PushTaskRes": fleet.push_task_res,
            "GetRun": unary(pb.GetRunRequest, fleet.get_run),
            "GetFab": unary(pb.GetFabRequest, fleet.get_fab),
        },
        leased={"PullTaskIns": fleet.pull_task_ins},
        holds=holds,
        drain=presence.drain,
    )
    return with_refusals(api)


@attrs.frozen(kw_only=True)
class _Fleet:
    state: State
    readmit: bool
    message_limit: int
    refusals_are_final: bool
    holds: Holds
    presence: Presence
    # What a host's nodes cause is told up to here: they come, go, and answer what cannot be taken.
    moves: Throttle = attrs.field(factory=lambda: Throttle(_log, burst=_MOST_MOVES))
    refusals: Throttle = attrs.field(factory=lambda: Throttle(_log))

    async def create_node(
        self, request: pb.CreateNodeRequest, caller: Caller
    ) -> pb.CreateNodeResponse:
        interval = _ping_interval(request.ping_interval)
        node_id = await self.state.create_node(interval, caller.public_key)
        note(node_id=node_id)
        self.presence.joined(node_id, interval)
        self._tell(caller, "Node %d joined from %s", node_id, caller.connection)
        return pb.CreateNodeResponse(node=pb.Node(node_id=node_id))

    async def delete_node(
        self, request: pb.DeleteNodeRequest, caller: Caller
    ) -> pb.DeleteNodeResponse:
        node_id = request.node.node_id
        note(node_id=node_id)
        if not request.node.anonymous and await self.state.delete_node(node_id):
            self.presence.left(node_id)
            self._tell(caller, "Node %d left", node_id)
        return pb.DeleteNodeResponse()

    async def ping(self, request: pb.PingRequest, caller: Caller) -> pb.PingResponse:
        interval = _ping_interval(request.ping_interval)
        if request.node.anonymous:
            return pb.PingResponse(success=False)
        node_id = request.node.node_id
        note(node_id=node_id)
        admission = await self.state.ping(node_id, interval, readmit=self.readmit)
        self._tell_of_readmission(admission, node_id, caller)
        known = admission is not Admission.UNKNOWN
        if known:
            self.presence.pinged(node_id, interval)
        return pb.PingResponse(success=known)

    @asynccontextmanager
    async def pull_task_ins(self, raw: bytes, caller: Caller) -> AsyncIterator[bytes]:
        request = parse(pb.PullTaskInsRequest, raw)
        node_id = request.node.node_id
        if request.node.anonymous != (node_id == ANONYMOUS):
            raise Refused(
                Status.INVALID_ARGUMENT, "node must be either anonymous or have a node_id"
            )
        note(node_id=node_id)
        hold = await self._greet(node_id, caller)
        task = await self._next_task(node_id, caller.own_connection, hold)
        if task is None:
            yield b""
            self.presence.answered(node_id, None)
        else:
            note(run_id=task.run_id, round=task.group_id, task_id=task.task_id)
            async with self.state.handing_over_task_ins(task):
                yield await join(write_pull_task_ins([task], timestamp(self.state.now())))
                # Before that is confirmed: the node may answer meanwhile.
                self.presence.answered(node_id, task)

    async def _greet(self, node_id: int, caller: Caller) -> float:
        """Take a pull for a heartbeat; say for how many seconds it may be held."""
        if node_id == ANONYMOUS:
            return self.presence.hold()
        admission = await self.state.heartbeat(node_id, readmit=self.readmit)
        self._tell_of_readmission(admission, node_id, caller)
        if admission is Admission.UNKNOWN:
            return 0.0
        return self.presence.pulls(node_id, has_key=bool(caller.public_key))

    async def _next_task(self, node_id: int, connection: str, hold: float) -> Task | None:
        task = await self.state.take_task_ins(node_id, connection)
        if task is not None or hold == 0:
            return task
        try:
            with self.state.attend(node_id), self.holds.open(hold):
                while task is None and await self.state.await_task_ins(node_id):
                    task = await self.state.take_task_ins(node_id, connection)
        except trio.Cancelled:
            self.presence.broke_off(node_id)
            raise
        return task

    async def push_task_res(self, raw: bytes, caller: Caller) -> bytes:
        try:
            drafts = await in_thread_if_large(len(raw), read_push_task_res, raw)
        except Malformed:
            raise malformed(pb.PushTaskResRequest) from None
        results: dict[str, int] = {}
        for draft in drafts:
            results[await self._store(draft, caller)] = 0
        for node_id in {draft.message.task.producer.node_id for draft in drafts}:
            self.presence.worked(node_id)
        response = pb.PushTaskResResponse(reconnect=_RECONNECT, results=results)
        return response.SerializeToString()

    async def _store(self, draft: Draft, caller: Caller) -> str:
        message = draft.message
        note(node_id=message.task.producer.node_id)
        note(run_id=message.run_id, round=message.group_id)
        for task_id in message.task.ancestry[:1]:
            note(task_id=task_id)
        found = faults(draft)
        if not found:
            task = accept(draft, pushed_at=self.state.now())
            if task.size <= self.message_limit:
                return await self._store_valid(task, caller)
            found = ["the answer is too large to be handed to a driver in one message"]
        await self._store_faults(draft, ", ".join(found), caller)
        return _NOT_TAKEN

    async def _store_valid(self, task: Task, caller: Caller) -> str:
        try:
            return await self.state.store_task_res(task)
        except NotTaken as reason:
            self.refusals.log(
                logging.INFO,
                caller.host,
                "Answer of node %d not taken: %s",
                *(task.producer, reason),
            )
            return _NOT_TAKEN
        except LimitReached as full:
            if self.refusals_are_final:
                words = limit_in_words(full)
                error = TaskError(
                    0, f"The node's answer was lost, there was no room for it: {words}"
                )
                await self.state.store_error(task.ancestry[0], error, producer=task.producer)
            raise

    async def _store_faults(self, draft: Draft, found: str, caller: Caller) -> None:
        """Tell the driver, if it still waits, that the answer came but cannot be used."""
        task = draft.message.task
        producer = task.producer.node_id if task.HasField("producer") else None
        self.refusals.log(
            logging.WARNING,
            caller.host,
            "Answer of node %s not taken, it is not valid: %s",
            *(producer, found),
        )
        for task_id in task.ancestry[:1]:
            error = TaskError(0, f"The node's answer was not valid: {found}")
            await self.state.store_error(task_id, error, producer=producer)

    def _tell(self, caller: Caller, message: str, node_id: int, *arguments: object) -> None:
        self.moves.log(
            logging.INFO, caller.host, message, node_id, *arguments, extra={"node_id": node_id}
        )

    def _tell_of_readmission(self, admission: Admission, node_id: int, caller: Caller) -> None:
        if admission is Admission.READMITTED:
            self._tell(caller, "Node %d came back", node_id)

    async def get_run(self, request: pb.GetRunRequest, _: Caller) -> pb.GetRunResponse:
        run = await self.state.get_run(request.run_id)
        return pb.GetRunResponse(run=None if run is None else write_run(run))

    async def get_fab(self, request: pb.GetFabRequest, _: Caller) -> pb.GetFabResponse:
        fab = await self.state.get_fab(request.hash_str)
        return pb.GetFabResponse(fab=None if fab is None else write_fab(fab))


def _ping_interval(seconds: float) -> float:
    if not 0 <= seconds < math.inf:
        raise Refused(
            Status.INVALID_ARGUMENT, f"ping_interval must be 0 or more seconds, not {seconds}"
        )
    return seconds
