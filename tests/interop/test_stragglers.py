"""A client that answers after its task has run out of time."""

from __future__ import annotations

import pytest
import trio
from interop.peers import VERSIONS, Peers
from peering.processes import SuperLink

pytestmark = pytest.mark.interop


@pytest.mark.beyond("refuses the late answer, and its client repeats that one for ever")
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_straggler_works_on(version: str, superlink: SuperLink, peers: Peers) -> None:
    with trio.fail_after(60):
        await peers.client(superlink, version, stall=3)
        first, second, third = await peers.federate(superlink, clients=1, round_timeout=2)
    assert first.failures > 0
    # The late answer was taken neither for the first round nor for a later one.
    assert (second.loss, second.failures) == (1, 0)
    assert (third.loss, third.failures) == (2, 0)
