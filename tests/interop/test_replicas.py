"""Unmodified Flower programs and replicas behind a balancer, of which any may end.

`KILLS=50 pytest tests/interop/test_replicas.py` is the long form: twelve clients, runs of twenty
rounds, until so many replicas were killed.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import psycopg
import pytest
import trio
from crashing import servers as replicas
from interop.peers import VERSIONS, Peers, Round
from peering.balancer import Balancer, NoBalancer, Place, balancing
from peering.processes import SuperLink
from standby import Pair, pair_of_servers

KILLS = int(os.environ.get("KILLS", "5"))
CLIENTS, ROUNDS, PATIENCE = (4, 5, 200) if KILLS <= 5 else (12, 20, 1800)

pytestmark = [pytest.mark.interop, pytest.mark.beyond("has no replicas"), pytest.mark.long]


@attrs.frozen
class Federation:
    """Replicas behind one address, and clients of every release around them."""

    pair: Pair
    balancer: Balancer
    replicas: Mapping[Place, replicas.Server]
    superlink: SuperLink
    peers: Peers

    async def rounds_during(self, what: Callable[[], Awaitable[None]]) -> None:
        """Run drivers meanwhile; every round has every result, and each of them once."""
        over = trio.Event()

        async def do() -> None:
            await what()
            over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(do)
            while not over.is_set():
                rounds = await self.peers.federate(self.superlink, clients=CLIENTS, rounds=ROUNDS)
                # Half of the clients add 1, the others 3: another loss is a result too few or many.
                expected = [Round(each, 2 * each, failures=0) for each in range(1, ROUNDS + 1)]
                assert rounds == expected

    async def kill(self) -> None:
        """Kill replicas of the Fleet API at random moments, never the last one.

        Not of the Driver API: of a call that breaks off while its answer is on the wire, which a
        kill leaves now and then on a busy machine, a driver of Flower makes a failed result.
        """
        killed = 0
        while killed < KILLS:
            await trio.sleep(random.uniform(0.05, 1))
            up = [place for place in await self.balancer.up() if place.side == "fleet"]
            able = [place for place in up if self.replicas[place].lives]
            if len(able) > 1:
                self.replicas[random.choice(able)].kill()
                killed += 1

    async def restart_one_by_one(self) -> None:
        """Restart each replica when the one before it serves."""
        for place, server in self.replicas.items():
            await server.alive()
            await self.restart(place)

    async def restart(self, place: Place) -> None:
        """Restart a replica as docs/balancing.md says."""
        if place.side == "driver":
            await self.balancer.drain(place)
        self.replicas[place].kill(signal.SIGTERM)
        await self.replicas[place].alive()
        await self.balancer.fill(place)

    async def fail_over(self) -> None:
        """Kill PostgreSQL, and promote its standby."""
        await trio.to_thread.run_sync(self.pair.fail_over)

    def nodes(self) -> Sequence[int]:
        """Give the ids of all nodes that ever joined."""
        with psycopg.connect(self.pair.url, target_session_attrs="read-write") as connection:
            found = connection.execute("SELECT node_id FROM node ORDER BY node_id")
            return [node_id for (node_id,) in found]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with pair_of_servers() as pair:
        yield pair


@pytest.fixture
async def federation(
    pair: Pair, peers: Peers, tmp_path: Path, nursery: trio.Nursery
) -> AsyncIterator[Federation]:
    try:
        async with balancing(tmp_path) as balancer:
            peers.programs.append(balancer.program)
            addresses = balancer.addresses
            servers = {
                place: replicas.Server(pair.url, [place.side], place.options)
                for place in balancer.of("driver", "fleet")
            }
            for server in servers.values():
                nursery.start_soon(server.serve)
            for server in servers.values():
                await server.alive()
            superlink = SuperLink(balancer.program, addresses["driver"], addresses["fleet"])
            for number in range(CLIENTS):
                version = VERSIONS[number % len(VERSIONS)]
                await peers.client(superlink, version, step=3 if number < CLIENTS / 2 else 1)
            federation = Federation(pair, balancer, servers, superlink, peers)
            while len(federation.nodes()) < CLIENTS:  # noqa: ASYNC110 (clients do not tell)
                await trio.sleep(0.1)
            yield federation
    except NoBalancer as error:
        pytest.skip(str(error))


@pytest.mark.timeout(PATIENCE)
async def test_the_rounds_of_a_driver_need_no_single_process(federation: Federation) -> None:
    nodes = federation.nodes()
    await federation.rounds_during(federation.kill)
    await federation.rounds_during(federation.restart_one_by_one)
    await federation.rounds_during(federation.fail_over)
    assert federation.nodes() == nodes, "no node has noticed"
