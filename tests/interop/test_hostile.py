"""A training, and beside it a client that does all it can: the one ends in time, the other fails.

The limits are small here, so that the hostile client is over all of them within a second.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import h2.config
import h2.connection
import h2.events
import pytest
import trio
from interop.peers import Peers, Round
from peering.processes import SuperLink
from transport.http.clients import FLEET, Http1, head

from superlink_trio.wire import superlink_pb2 as pb

pytestmark = [
    pytest.mark.interop,
    pytest.mark.beyond("has no limits but that of a message"),
]

MiB = 1024 * 1024
LIMITS = (
    *("--max-message-size", "2MiB"),
    *("--max-nodes", "2"),
    *("--max-calls", "64"),
    *("--max-connections", "256"),
    *("--max-stored-size", "16MiB"),
    *("--request-timeout", "1"),
)
# How often an attack is repeated at most, should the training never end.
TIMES = 100

CREATE = pb.CreateNodeRequest(ping_interval=1e9).SerializeToString()
PULL = pb.PullTaskInsRequest(node=pb.Node(anonymous=True)).SerializeToString()


@attrs.define
class Hostile:
    """Counts, by call and status, the answers that it gets."""

    host: str
    port: int
    answers: Counter[tuple[str, str]] = attrs.field(factory=Counter)

    async def attack(self, *attacks: Callable[[], Awaitable[None]]) -> None:
        """Do all at the same time, again and again; a connection that is refused is no failure."""

        async def repeat(attack: Callable[[], Awaitable[None]]) -> None:
            for _ in range(TIMES):
                with suppress(trio.BrokenResourceError, OSError, EOFError):
                    await attack()
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            for attack in attacks:
                nursery.start_soon(repeat, attack)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[trio.SocketStream]:
        async with await trio.open_tcp_stream(self.host, self.port) as stream:
            yield stream

    async def silence(self) -> None:
        """Open connections and say nothing."""
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(self._say_nothing)

    async def _say_nothing(self) -> None:
        with suppress(trio.BrokenResourceError, OSError), trio.move_on_after(5):
            async with self.connection() as stream:
                while await stream.receive_some():
                    pass
                self.answers["silence", "closed"] += 1

    async def grpc(self, name: str, message: bytes, *, calls: int, size: int | None = None) -> None:
        """Make calls on one connection and wait for answers; `size` is what a message pretends."""
        client = h2.connection.H2Connection(h2.config.H2Configuration())
        client.initiate_connection()
        async with self.connection() as stream:
            for _ in range(calls):
                number = client.get_next_available_stream_id()
                fields = [(":method", "POST"), (":scheme", "http"), (":authority", "x")]
                fields += [(":path", f"/flwr.proto.Fleet/{name}"), ("te", "trailers")]
                client.send_headers(number, [*fields, ("content-type", "application/grpc")])
                frame = struct.pack(">?I", False, len(message) if size is None else size) + message
                client.send_data(number, frame, end_stream=size is None)
            await stream.send_all(client.data_to_send())
            with trio.move_on_after(3):
                await self._read(name, client, stream, calls)

    async def _read(
        self, name: str, client: h2.connection.H2Connection, stream: trio.SocketStream, calls: int
    ) -> None:
        while calls and (data := await stream.receive_some()):
            for event in client.receive_data(bytes(data)):
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    status = dict(map(_decoded, event.headers)).get("grpc-status")
                    if status is not None:
                        self.answers[name, status] += 1
                        calls -= 1
            await stream.send_all(client.data_to_send())

    async def http(
        self, path: str, body: bytes, *, calls: int = 1, size: int | None = None
    ) -> None:
        """Make calls, each on a connection of its own; `size` is what a body pretends."""

        async def call() -> None:
            with suppress(OSError), trio.move_on_after(3):
                async with self.connection() as stream:
                    client = Http1(stream)
                    length = len(body) if size is None else size
                    try:
                        await client.send(head("POST", FLEET + path, length) + body)
                        self.answers[path, str((await client.answer()).status)] += 1
                    except (trio.BrokenResourceError, EOFError):
                        self.answers[path, "closed"] += 1

        async with trio.open_nursery() as nursery:
            for _ in range(calls):
                nursery.start_soon(call)


def _decoded(field: tuple[bytes, bytes]) -> tuple[str, str]:
    return field[0].decode(), field[1].decode()


def peak_memory(superlink: SuperLink) -> int:
    """Bytes that the SuperLink's process has had in memory at most."""
    status = Path(f"/proc/{superlink.program.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


async def train_beside(
    peers: Peers, transport: str, attacks: Callable[[Hostile], list[Callable[[], Awaitable[None]]]]
) -> Hostile:
    """Run a training beside a hostile client, and check that it ends well."""
    superlink = await peers.superlink(*LIMITS, transport=transport)
    host, port = superlink.fleet.rsplit(":", 1)
    hostile = Hostile(host, int(port))
    with trio.fail_after(90):
        await peers.client(superlink, "1.9.0", transport=transport, step=1)
        await peers.client(superlink, "1.9.0", transport=transport, step=3)
        await superlink.program.line("Node .* joined", nth=2)
        before = peak_memory(superlink)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hostile.attack, *attacks(hostile))
            await trio.sleep(4)  # until every attack has come to something
            rounds = await peers.federate(superlink, clients=2)
            grown = peak_memory(superlink) - before
            nursery.cancel_scope.cancel()
    assert rounds == [Round(1, 2, failures=0), Round(2, 4, failures=0), Round(3, 6, failures=0)]
    assert grown < 64 * MiB
    return hostile


async def test_a_training_over_grpc_beside_a_hostile_client(peers: Peers) -> None:
    def attacks(hostile: Hostile) -> list[Callable[[], Awaitable[None]]]:
        return [
            hostile.silence,
            partial(hostile.grpc, "CreateNode", CREATE, calls=50),
            partial(hostile.grpc, "PushTaskRes", bytes(1000), calls=20, size=4 * MiB),
            partial(hostile.grpc, "GetRun", b"\x08", calls=100, size=1000),
            partial(hostile.grpc, "PullTaskIns", PULL, calls=100),
        ]

    hostile = await train_beside(peers, "grpc-rere", attacks)
    answers = hostile.answers
    assert answers["CreateNode", "8"] > 0
    assert answers["CreateNode", "0"] == 0, "it got no node"
    assert answers["PushTaskRes", "8"] > 0
    assert answers["GetRun", "8"] > 0, "requests that never came gave way"
    assert answers["PullTaskIns", "0"] + answers["PullTaskIns", "8"] > 0, "held pulls gave way"
    assert answers["silence", "closed"] > 0


async def test_a_training_over_rest_beside_a_hostile_client(peers: Peers) -> None:
    def attacks(hostile: Hostile) -> list[Callable[[], Awaitable[None]]]:
        return [
            hostile.silence,
            partial(hostile.http, "create-node", CREATE, calls=20),
            partial(hostile.http, "push-task-res", bytes(1000), calls=5, size=4 * MiB),
            partial(hostile.http, "get-run", b"\x08", calls=20, size=1000),
            partial(hostile.http, "pull-task-ins", PULL, calls=80),
        ]

    hostile = await train_beside(peers, "rest", attacks)
    answers = hostile.answers
    assert answers["create-node", "507"] > 0
    assert answers["create-node", "200"] == 0, "it got no node"
    assert answers["push-task-res", "413"] > 0
    assert answers["get-run", "closed"] > 0, "requests that never came were given up"
    assert answers["pull-task-ins", "200"] > 0, "held pulls gave way"
    assert answers["silence", "closed"] > 0
