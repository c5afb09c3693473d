"""The low-level drivers, which user code builds its own workflows on, and a client's farewell."""

from __future__ import annotations

import pytest
import trio
from interop.peers import VERSIONS, Peers
from peering.processes import SuperLink

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("version", VERSIONS)
async def test_questions_are_answered(version: str, superlink: SuperLink, peers: Peers) -> None:
    with trio.fail_after(60):
        await peers.client(superlink, version)
        await peers.client(superlink, version)
        driver = await peers.driver(superlink, version, "ask.py", "2")
        answers = await driver.report("driver")
    assert answers == {"driver": ["driver", "driver"], "bare": ["bare", "bare"]}


# 1.8's client dies of the signal without a word.
@pytest.mark.parametrize("transport", ["grpc-rere", "rest"])
@pytest.mark.parametrize("version", ["1.9.0", "1.10.0", "1.11.1"])
async def test_a_client_that_is_told_to_stop_takes_its_node_with_it(
    version: str, transport: str, peers: Peers
) -> None:
    with trio.fail_after(60):
        superlink = await peers.superlink(transport=transport)
        client = await peers.client(superlink, version, transport=transport)
        driver = await peers.driver(superlink, "1.9.0", "ask.py", "1")
        await driver.report("driver")
        client.process.terminate()
        with trio.fail_after(5):
            status = await client.end()
        await driver.write("the client has ended\n")
        left = await driver.report("nodes")
    assert (status, left) == (0, {"nodes": 0})
