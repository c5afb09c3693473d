"""Whole SuperLinks that serve today's Flower over one PostgreSQL, as behind a load balancer."""

from __future__ import annotations

import itertools
import time

import pytest
import trio
from peering.client import Send
from peering.parcels import parcel
from peering.parties import Connect, Headers, Node, at, join, start_run, statuses, take_run
from peering.processes import ANY_PORT, CHECKOUT, OURS, launching
from peering.signing import Signer
from postgresql import the_server

from superlink_trio.state.messages import SERVER

_OPTIONS = (
    *("--insecure", "--log-format", "json", "--port", "0", "--isolation", "process"),
    *("--driver-api-address", ANY_PORT, "--grpc-rere-fleet-api-address", ANY_PORT),
)


def spread(addresses: list[str]) -> Connect:
    """Connect to several SuperLinks: each call reaches the next of them."""

    def connect(api: str, headers: Headers) -> Send:
        sends = itertools.cycle([at(address)(api, headers) for address in addresses])
        return lambda name, request: next(sends)(name, request)

    return connect


@pytest.mark.alone
async def test_each_call_may_reach_another_one() -> None:
    thread = trio.to_thread.run_sync
    environment = {"SUPERLINK_DATABASE": the_server().new_schema(), "PYTHONPATH": CHECKOUT}
    async with launching() as launch:
        with trio.fail_after(90):
            both = [await launch("SuperLink", *OURS, *_OPTIONS, **environment) for _ in range(2)]
            addresses = [(await each.report("flower_address"))["flower_address"] for each in both]
            connect = spread(addresses)
            run_id = await thread(start_run, connect)
            taken = await thread(take_run, connect)
            assert taken is not None
            _, process = taken
            assert await thread(process.begin) == run_id
            node = await thread(join, connect, Signer())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(thread, _work, node, run_id)
                sent = parcel(run_id, to=node.node_id, created_at=time.time())
                asked = await thread(process.push, [sent])
                [(reply, _)] = await thread(process.pull, asked)
            assert reply.metadata.reply_to_message_id == asked[0]
            # A run that a SuperExec has goes on, as there is another SuperLink.
            await both[1].terminate()
            rest = at(addresses[0])
            assert (await thread(statuses, rest))[run_id].status == "running"
            await both[0].terminate()
            assert [each.process.returncode for each in both] == [0, 0]


def _work(node: Node, run_id: int) -> None:
    """Reply to one instruction."""
    asked = None
    while asked is None:
        asked = node.pull()
    reply_to = asked[0].metadata.message_id
    node.push(parcel(run_id, source=node.node_id, to=SERVER, reply_to=reply_to))
