"""A SuperLink that goes and comes back under a live fleet."""

from __future__ import annotations

import signal

import pytest
import trio
from interop.peers import VERSIONS, Peers

pytestmark = pytest.mark.interop


@pytest.mark.beyond("knows none of its nodes after a restart")
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
async def test_every_client_comes_back_by_itself(ending: signal.Signals, peers: Peers) -> None:
    with trio.fail_after(90):
        old = await peers.superlink()
        for version in VERSIONS:
            await peers.client(old, version)
        await peers.client(old, "1.11.1", transport="grpc-adapter", step=6)
        [before] = await peers.federate(old, clients=5, rounds=1)
        old.program.process.send_signal(ending)
        await old.program.end()
        new = await peers.superlink(driver=old.driver, fleet=old.fleet)
        first, second = await peers.federate(new, clients=5, rounds=2)
    rounds = [before, first, second]
    assert [round_.failures for round_ in rounds] == [0, 0, 0]
    # The mean of five depends on the order in which they came, in its last digit.
    assert [round_.loss for round_ in rounds] == pytest.approx([2, 2, 4])


@pytest.mark.beyond("knows none of its nodes after a restart")
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
async def test_every_client_over_rest_comes_back_by_itself(
    ending: signal.Signals, peers: Peers
) -> None:
    with trio.fail_after(90):
        old = await peers.superlink(transport="rest")
        for version in VERSIONS:
            await peers.client(old, version, transport="rest")
        [before] = await peers.federate(old, clients=4, rounds=1)
        old.program.process.send_signal(ending)
        await old.program.end()
        new = await peers.superlink(driver=old.driver, fleet=old.fleet, transport="rest")
        first, second = await peers.federate(new, clients=4, rounds=2)
    assert (before.loss, before.failures) == (1, 0)
    assert (first.loss, first.failures) == (1, 0)
    assert (second.loss, second.failures) == (2, 0)
