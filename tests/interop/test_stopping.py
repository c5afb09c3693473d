"""A SuperLink that is told to stop while clients and drivers wait for it."""

from __future__ import annotations

import pytest
import trio
from interop.peers import Peers

pytestmark = pytest.mark.interop

GRACE = 2.0


@pytest.mark.alone
@pytest.mark.beyond("makes no promise of when it ends")
@pytest.mark.parametrize("transport", ["grpc-rere", "rest"])
async def test_stopping_in_the_middle_of_a_round_takes_no_longer_than_grace(
    transport: str, peers: Peers
) -> None:
    with trio.fail_after(60):
        superlink = await peers.superlink("--grace", str(GRACE), transport=transport)
        working = await peers.client(superlink, "1.9.0", transport=transport, stall=60)
        await peers.client(superlink, "1.11.1", transport=transport)
        await peers.server_app(superlink, clients=2)
        # The round is under way: one node works, one waits for a task, the driver for results.
        await working.line("^stalling")
        superlink.program.process.terminate()
        with trio.fail_after(GRACE + 0.5):
            status = await superlink.program.end()
    assert status == 0
