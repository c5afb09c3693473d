"""The Runtime API: the process of a run gets its input, pushes instructions and pulls replies.

Each call carries the token that the process was started with. One that is not valid any more
(UNAUTHENTICATED) ends the process, which is how a run is stopped. Whoever asks for runs, to start
their processes, has no token yet: see `superexecs`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import attrs
from google.protobuf.message import Message

from superlink_trio.logs.context import note
from superlink_trio.rounds import Rounds
from superlink_trio.rounds import messages as following
from superlink_trio.rpc import Api, Caller, Holds, Refused, Status, Unary, parse, with_refusals
from superlink_trio.rpc.patience import Patience
from superlink_trio.runtime.superexecs import Acquiring
from superlink_trio.state.messages import SERVER, MessageState, NotFound, NotPermitted
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import (
    Outcome,
    RunRecord,
    envelopes_of,
    write_fab,
    write_node,
    write_object,
    write_run,
)
from superlink_trio.wire.objects import ids_asked

TOKEN = "flwr-task-token"

_OUTCOMES = {outcome.value: outcome for outcome in Outcome}

Request = TypeVar("Request", bound=Message)


def runtime_api(
    state: MessageState,
    *,
    hold: Callable[[], float],
    superexecs: Acquiring,
    rounds: Rounds | None = None,
) -> Api:
    """Make the Runtime API over a state.

    `hold` gives the seconds for which PullMessages waits until every reply is there, or, from the
    first one on, until none follows for a moment. `superexecs` answers those who ask for runs.
    `rounds` is told what moves.
    """
    holds = Holds()
    runtime = _Runtime(state=state, hold=hold, holds=holds, rounds=rounds or Rounds())
    calls: dict[str, tuple[type[Message], Callable[..., Awaitable[Message]]]] = {
        "GetNodes": (pb.GetNodesRequest, runtime.get_nodes),
        "PushMessages": (pb.PushAppMessagesRequest, runtime.push_messages),
        "PushObject": (pb.PushObjectRequest, runtime.push_object),
        "PullObject": (pb.PullObjectRequest, runtime.pull_object),
        "ConfirmMessageReceived": (pb.ConfirmMessageReceivedRequest, runtime.confirm),
        "PushLogs": (pb.PushLogsRequest, runtime.push_logs),
        "PushTaskOutput": (pb.PushTaskOutputRequest, runtime.push_task_output),
    }
    return with_refusals(
        Api(
            service="flwr.proto.Runtime",
            unary={
                "PullTaskInput": runtime.pull_task_input,
                "SendTaskHeartbeat": runtime.send_heartbeat,
                **{name: runtime.of_run(kind, handle) for name, (kind, handle) in calls.items()},
            },
            leased={
                "AcquireTask": partial(superexecs.acquire_task, holds),
                "PullMessages": runtime.pull_messages,
            },
            holds=holds,
        )
    )


@attrs.frozen(kw_only=True)
class _Runtime:
    state: MessageState
    hold: Callable[[], float]
    holds: Holds
    rounds: Rounds

    def of_run(
        self,
        kind: type[Request],
        handle: Callable[[Request, RunRecord], Awaitable[Message]],
    ) -> Unary:
        """Make a call that the process of a run makes."""

        async def answer(raw: bytes, caller: Caller) -> bytes:
            run = await self._run_of(caller)
            return (await handle(parse(kind, raw), run)).SerializeToString()

        return answer

    async def _run_of(self, caller: Caller) -> RunRecord:
        run = await self.state.run_of_token(caller.metadata.get(TOKEN, ""))
        if run is None:
            raise Refused(Status.UNAUTHENTICATED, "The token is not valid (any more).")
        note(run_id=run.run_id)
        return run

    # The process

    async def pull_task_input(self, _: bytes, caller: Caller) -> bytes:
        try:
            run = await self.state.begin_run(caller.metadata.get(TOKEN, ""))
        except NotFound as error:
            raise Refused(Status.UNAUTHENTICATED, f"{error}") from None
        except NotPermitted as error:
            raise Refused(Status.FAILED_PRECONDITION, f"{error}") from None
        note(run_id=run.run_id)
        fab = await self.state.fab(run.fab_hash)
        return pb.PullTaskInputResponse(
            context=pb.Context(
                run_id=run.run_id, node_id=SERVER, state=b"", series_id=run.series_id
            ),
            run=write_run(run),
            fab=None if fab is None else write_fab(fab),
            federation_config=run.simulation,
            task_id=run.task_id,
        ).SerializeToString()

    async def send_heartbeat(self, _: bytes, caller: Caller) -> bytes:
        goes_on = await self.state.task_heartbeat(caller.metadata.get(TOKEN, ""))
        return pb.SendTaskHeartbeatResponse(success=goes_on).SerializeToString()

    async def push_logs(self, request: pb.PushLogsRequest, run: RunRecord) -> pb.PushLogsResponse:
        await self.state.log(run.run_id, "".join(request.logs))
        return pb.PushLogsResponse()

    async def push_task_output(
        self, request: pb.PushTaskOutputRequest, run: RunRecord
    ) -> pb.PushTaskOutputResponse:
        outcome = _OUTCOMES.get(request.sub_status, Outcome.FAILED)
        await self.state.finish_run(run.run_id, outcome, request.details)
        return pb.PushTaskOutputResponse()

    # Nodes and messages

    async def get_nodes(self, _: pb.GetNodesRequest, __: RunRecord) -> pb.GetNodesResponse:
        now = self.state.now()
        online = [node for node in await self.state.nodes() if node.online_until > now]
        return pb.GetNodesResponse(nodes=[write_node(node, now) for node in online])

    async def push_messages(
        self, request: pb.PushAppMessagesRequest, run: RunRecord
    ) -> pb.PushAppMessagesResponse:
        envelopes = envelopes_of(request.messages_list, request.message_object_trees)
        note(messages=len(envelopes))
        pushed = await self.state.push(run.run_id, SERVER, envelopes)
        pairs = zip(envelopes, pushed.message_ids, strict=True)
        taken = (envelope for envelope, message_id in pairs if message_id)
        self.rounds.sent(following.asked(taken, self.state.now()))
        return pb.PushAppMessagesResponse(
            message_ids=pushed.message_ids,
            objects_to_push=pushed.missing,
            session_id=pushed.session_id,
        )

    @asynccontextmanager
    async def pull_messages(self, raw: bytes, caller: Caller) -> AsyncIterator[bytes]:
        run = await self._run_of(caller)
        message_ids = ids_asked(parse(pb.PullAppMessagesRequest, raw).message_ids)
        with self.holds.open(self.hold()) as scope:
            patience = Patience(scope, len(message_ids))
            await self.state.await_replies(run.run_id, message_ids, patience.note)
        # Meanwhile the run may have been stopped: its process hears of it at once.
        await self._run_of(caller)
        replies = await self.state.take_replies(run.run_id, message_ids)
        note(asked=len(message_ids), replies=len(replies))
        # What is not confirmed is given again: nothing is to be done where this does not arrive.
        yield pb.PullAppMessagesResponse(
            messages_list=[reply.message for reply in replies],
            message_object_trees=[reply.tree for reply in replies],
        ).SerializeToString()
        self.rounds.collected(following.answered(replies))

    # Objects

    async def push_object(
        self, request: pb.PushObjectRequest, run: RunRecord
    ) -> pb.PushObjectResponse:
        await self.state.put_object(run.run_id, SERVER, request.object_id, request.object_content)
        return pb.PushObjectResponse(stored=True)

    async def pull_object(
        self, request: pb.PullObjectRequest, run: RunRecord
    ) -> pb.PullObjectResponse:
        return write_object(await self.state.get_object(run.run_id, SERVER, request.object_id))

    async def confirm(
        self, request: pb.ConfirmMessageReceivedRequest, run: RunRecord
    ) -> pb.ConfirmMessageReceivedResponse:
        await self.state.confirm(run.run_id, SERVER, request.message_object_id)
        return pb.ConfirmMessageReceivedResponse()
