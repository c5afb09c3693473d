"""What messages of today's Flower cost in each kind of store: every call of theirs, no programs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs
import trio
from peering.client import over_one_connection
from peering.parcels import parcel
from peering.parties import Connect, Node, Party, Process, join, start_run, take_run
from peering.processes import SuperLink
from peering.signing import Signer

from benchmarks.comparison import Bench, NotMeasured, Side, group, in_thread
from benchmarks.deployments import MEMORY, POSTGRESQL, SQLITE, Deployment, deployed, postgresql
from benchmarks.replicas import Relay, at_once
from benchmarks.table import MESSAGES_PER_SECOND, Figure
from superlink_trio.state.messages import SERVER
from superlink_trio.wire import messages_pb2 as pb

_DEPLOYMENTS = [
    *(Deployment(store) for store in (MEMORY, SQLITE, POSTGRESQL)),
    Deployment(POSTGRESQL, 2),
]
_PAIRS = 8
_SERVING = ("--port", "0", "--isolation", "process", "--log-format", "json")
# Seconds: no node is to be offline for as long as anything here takes.
_INTERVAL = 1800.0


@attrs.frozen
class _Talk(Relay):
    """A run at one SuperLink, and a node, perhaps at another, that replies to its instructions."""

    process: Process
    node: Node
    run_id: int

    @classmethod
    def between(cls, run_at: str, node_at: str) -> _Talk:
        start_run(_at(run_at))
        while (taken := take_run(_at(run_at))) is None:
            pass  # a hold may end before, on a machine that is very busy
        run_id, process = taken
        process.begin()
        return cls(process, join(_at(node_at), Signer(), _INTERVAL), run_id)

    def ask(self, number: int, asked: list[float]) -> list[float]:
        """See `Relay`."""
        answered = []
        for each in range(number):
            part = b"%d" % each
            one = parcel(self.run_id, to=self.node.node_id, parts=(part,), created_at=time.time())
            asked.append(time.perf_counter())
            self.process.push([one])
            while not (replies := self.process.pull([one.message_id])):
                pass
            [(reply, tree)] = replies
            self._take(self.process, reply, tree)
            answered.append(time.perf_counter())
        return answered

    def answer(self, number: int, got: list[float]) -> None:
        """See `Relay`."""
        for each in range(number):
            while (pulled := self.node.pull()) is None:
                pass
            asked, tree = pulled
            got.append(time.perf_counter())
            self._take(self.node, asked, tree)
            reply = parcel(
                self.run_id,
                source=self.node.node_id,
                to=SERVER,
                reply_to=asked.metadata.message_id,
                parts=(b"reply %d" % each,),
                created_at=time.time(),
            )
            self.node.push(reply)

    def _take(self, party: Party, message: pb.Message, tree: pb.ObjectTree) -> None:
        objects = list(party.pull_objects(self.run_id, tree))
        if message.HasField("error") or None in dict(objects).values():
            raise NotMeasured("a message came to nothing")
        party.confirm(message)


def _at(address: str) -> Connect:
    return lambda api, headers: over_one_connection(address, f"/v1/{api}", headers, timeout=60.0)


@group(times=3, reference=0)
async def messages(bench: Bench, side: Side) -> list[Figure]:
    """What a message of 1.42 and its reply cost: one SuperLink, and two on PostgreSQL."""
    figures: list[Figure] = []
    async with postgresql() as server:
        for deployment in _DEPLOYMENTS:
            async with deployed(bench, side, deployment, server, *_SERVING) as links:
                talks = await _talks(links)
                what = f"1.42, {deployment.name}: messages and replies of {_PAIRS} pairs"
                number = 1 if bench.quick else 15
                figures += await at_once(
                    what, talks, number, links, server, unit=MESSAGES_PER_SECOND
                )
    return figures


async def _talks(links: Sequence[SuperLink]) -> Sequence[_Talk]:
    """Make the pairs, each between a SuperLink and the next, which may be the same."""
    addresses = []
    with trio.fail_after(60):
        for link in links:
            addresses.append((await link.program.report("flower_address"))["flower_address"])
    return [
        await in_thread(
            _Talk.between,
            *(addresses[each % len(addresses)] for each in (number, number + 1)),
        )
        for number in range(_PAIRS)
    ]
