"""The page of a SuperLink in a real browser, while Flower's own clients work."""

from __future__ import annotations

import pytest
import trio
from browsing import browsing
from interop.peers import Peers, Round
from peering.processes import free_address

pytestmark = [
    pytest.mark.interop,
    pytest.mark.browser,
    pytest.mark.beyond("has no page"),
]


async def test_it_shows_a_federation_while_it_goes_on(peers: Peers) -> None:
    address = free_address()
    superlink = await peers.superlink("--admin-address", address)
    seen = trio.Event()

    def watch() -> None:
        with browsing(f"http://{address}") as page:
            page.wait_for_selector("#nodes >> text=2 nodes, 2 online")
            trio.from_thread.run_sync(seen.set)
            page.wait_for_selector("#runs p >> text=evaluate, round 3: 2 of 2 answered")
            page.click("#runs summary")
            rounds = page.locator("#runs tbody th").all_inner_texts()
            assert rounds[:6] == [
                f"{number} {kind}" for number in (3, 2, 1) for kind in ("evaluate", "train")
            ]

    with trio.fail_after(90):
        async with trio.open_nursery() as nursery:
            for step in (1, 3):
                await peers.client(superlink, "1.9.0", step=step)
            nursery.start_soon(trio.to_thread.run_sync, watch)
            await seen.wait()
            rounds = await peers.federate(superlink, "1.9.0", clients=2)
    assert rounds == [Round(number, 2 * number, failures=0) for number in (1, 2, 3)]
