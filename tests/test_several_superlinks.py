"""Whole SuperLinks that serve today's Flower over one PostgreSQL, as behind a load balancer."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import trio
from control.test_api import bundle
from message_rounds import Node, objects_of, place_app, post, read_token
from peering.processes import ANY_PORT, CHECKOUT, OURS, Program, launching
from postgresql import the_server
from state.messages.parcels import parcel

from superlink_trio.state.messages import SERVER
from superlink_trio.wire import messages_pb2 as pb

Start: TypeAlias = Callable[[], Awaitable[tuple[Program, str]]]

_OPTIONS = (
    *("--insecure", "--log-format", "json", "--port", "0"),
    *("--driver-api-address", ANY_PORT, "--grpc-rere-fleet-api-address", ANY_PORT),
)


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """Where the app of a run, which does nothing, tells its token."""
    return place_app(tmp_path)


@pytest.fixture
async def start(told: Path) -> AsyncIterator[Start]:
    """Start a SuperLink over the same database as the others; give where it serves."""
    database = the_server().new_schema()
    path = f"{told.parent}{os.pathsep}{os.environ['PATH']}"
    async with launching(sessions=True) as launch:

        async def start() -> tuple[Program, str]:
            environment = {"SUPERLINK_DATABASE": database, "PATH": path, "PYTHONPATH": CHECKOUT}
            program = await launch("SuperLink", *OURS, *_OPTIONS, **environment)
            return program, (await program.report("flower_address"))["flower_address"]

        yield start


@pytest.mark.alone
async def test_a_run_its_app_and_a_node_may_call_any(start: Start, told: Path) -> None:
    thread = trio.to_thread.run_sync
    with trio.fail_after(60):
        first, one = await start()
        new = pb.StartRunRequest(fab=bundle())
        run_id = (await thread(post, one, "control/start-run", new, pb.StartRunResponse)).run_id
        app = {"flwr-task-token": await thread(read_token, told)}
        # It has claimed the run, as there was no other.
        second, other = await start()
        begin = pb.PullTaskInputRequest()
        await thread(post, other, "runtime/pull-task-input", begin, pb.PullTaskInputResponse, app)
        node = Node(other)
        node_id = await thread(node.start)
        asked = parcel(run_id, to=node_id, created_at=time.time())
        push = pb.PushAppMessagesRequest(
            messages_list=[asked.envelope.message], message_object_trees=[asked.envelope.tree]
        )
        await thread(post, one, "runtime/push-messages", push, pb.PushAppMessagesResponse, app)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_work, node, Node(one, node.signer), node_id)
            for where, (object_id, content) in zip((one, other), objects_of(asked), strict=True):
                put = pb.PushObjectRequest(
                    run_id=run_id, object_id=object_id, object_content=content
                )
                await thread(post, where, "runtime/push-object", put, pb.PushObjectResponse, app)
            pull = pb.PullAppMessagesRequest(message_ids=[asked.message_id])
            pulled = await thread(
                post, other, "runtime/pull-messages", pull, pb.PullAppMessagesResponse, app
            )
        [reply] = pulled.messages_list
        assert reply.metadata.reply_to_message_id == asked.message_id
        await second.terminate()
        over = pb.PushTaskOutputRequest(sub_status="completed")
        await thread(post, one, "runtime/push-task-output", over, pb.PushTaskOutputResponse, app)
        await first.terminate()
        assert first.process.returncode == second.process.returncode == 0


async def _work(pulls: Node, pushes: Node, node_id: int) -> None:
    """Pull an instruction at one SuperLink, and reply at the other."""
    thread = trio.to_thread.run_sync
    me = pb.Node(node_id=node_id)
    pull = pb.PullMessagesRequest(node=me)
    messages: list[pb.Message] = []
    while not messages:
        answer = await thread(pulls.call, "pull-messages", pull, pb.PullMessagesResponse)
        messages = list(answer.messages_list)
    meta = messages[0].metadata
    reply = parcel(meta.run_id, source=node_id, to=SERVER, reply_to=meta.message_id)
    push = pb.PushMessagesRequest(
        node=me,
        messages_list=[reply.envelope.message],
        message_object_trees=[reply.envelope.tree],
    )
    await thread(pushes.call, "push-messages", push, pb.PushMessagesResponse)
    for object_id, content in objects_of(reply):
        put = pb.PushObjectRequest(
            node=me, run_id=meta.run_id, object_id=object_id, object_content=content
        )
        await thread(pushes.call, "push-object", put, pb.PushObjectResponse)
