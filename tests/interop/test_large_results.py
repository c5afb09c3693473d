"""Results that no single message can hold together."""

from __future__ import annotations

import pytest
import trio
from interop.peers import Peers
from peering.processes import SuperLink

pytestmark = pytest.mark.interop

RESULTS = 20
SIZE = 64 * 2**20


@pytest.mark.beyond("puts them all into one message, which gRPC refuses")
async def test_twenty_results_of_64_mb_arrive_in_portions(
    superlink: SuperLink, peers: Peers
) -> None:
    with trio.fail_after(180):
        client = await peers.client_app(superlink, "1.9.0", "blobs:app")
        driver = await peers.driver(superlink, "1.9.0", "blobs.py", str(RESULTS), str(SIZE))
        await client.line("Sent reply", nth=RESULTS)
        await driver.write("all of them are waiting\n")
        outcome = await driver.report("pulls")
        status = await driver.end()
    # 1.25 GiB, in messages of at most half a GiB each.
    assert outcome.pop("pulls") >= 3
    assert outcome == {"replies": RESULTS, "intact": list(range(RESULTS))}
    assert status == 0
