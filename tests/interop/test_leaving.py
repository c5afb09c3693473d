"""Nodes that are told to stop: they sign off and end, whatever the SuperLink does at that time."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio
from interop.peers import Peers
from peering.processes import Program

pytestmark = pytest.mark.interop

# The first release whose nodes sign off when they are told to stop.
SIGNING_OFF = ("1.9.0", "1.10.0", "1.11.1")


async def stop(*programs: Program) -> list[int]:
    """Tell all of them to stop in the same moment, and wait until they have."""
    for program in programs:
        program.process.terminate()
    return [await program.end() for program in programs]


@pytest.mark.beyond("does not answer those who sign off from it while it stops")
@pytest.mark.parametrize("transport", ["grpc-rere", "rest"])
async def test_nodes_and_superlink_end_when_they_are_stopped_together(
    transport: str, peers: Peers
) -> None:
    with trio.fail_after(60):
        superlink = await peers.superlink(transport=transport)
        nodes = [
            await peers.client(superlink, version, transport=transport) for version in SIGNING_OFF
        ]
        await peers.federate(superlink, clients=len(nodes), rounds=1)
        assert await stop(superlink.program, *nodes) == [0, 0, 0, 0]
    assert len([line for line in superlink.program.lines if "left" in line]) == len(nodes)


@pytest.mark.beyond("keeps a file of nodes that are gone")
@pytest.mark.parametrize("version", ["1.10.0", "1.11.1"])
async def test_a_node_that_reconnected_signs_off_when_it_is_stopped(
    version: str, peers: Peers, tmp_path: Path
) -> None:
    database = ("--database", str(tmp_path / "state.db"))
    with trio.fail_after(90):
        old = await peers.superlink(*database)
        stopped = await peers.client(old, version, step=100)
        await peers.client(old, version)
        await peers.federate(old, clients=2, rounds=1)
        old.program.process.kill()
        await old.program.end()
        new = await peers.superlink(*database, driver=old.driver, fleet=old.fleet)
        # It tells that it has been answered again: from then on it signs off.
        await stopped.line("Connection successful")
        await stop(stopped)
        await new.program.line("Node .* left")
        await peers.client(new, version, step=3)
        await new.program.line("Node .* joined")
        rounds = await peers.federate(new, clients=2, rounds=1)
    assert [(round_.loss, round_.failures) for round_ in rounds] == [(2, 0)]


@pytest.mark.beyond("waits for the pings of a node that was killed to run out")
async def test_a_node_that_was_killed_is_offline_soon(peers: Peers) -> None:
    with trio.fail_after(60):
        superlink = await peers.superlink()
        killed = await peers.client(superlink, "1.11.1", step=100)
        await peers.client(superlink, "1.11.1")
        # Then its next pull is held.
        await peers.federate(superlink, clients=2, rounds=1)
        killed.process.send_signal(signal.SIGKILL)
        await killed.end()
        # Longer than a node may take to come back, shorter than its last ping would last.
        await trio.sleep(7)
        [only] = await peers.federate(superlink, clients=1, rounds=1)
    assert (only.loss, only.failures) == (1, 0)
