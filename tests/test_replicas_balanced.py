"""A task that is lost between a balancer and its node, in both modes of the balancer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from peering.balancer import NoBalancer, balancing
from peering.client import Client, NotAnswered, over_grpc
from peering.messages import task_ins
from peering.processes import ANY_PORT

from superlink_trio import SuperLinkConfig, run_superlink

_LOST = 5.0


@attrs.define
class Way:
    """A way to an address, on which everything that comes back may get lost."""

    address: str
    loses: bool = False

    async def carry(self, near: trio.SocketStream, target: str) -> None:
        host, _, port = target.rpartition(":")
        far = await trio.open_tcp_stream(host, int(port))
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, near, far)
            async for data in far:
                if not self.loses:
                    await near.send_all(data)
            nursery.cancel_scope.cancel()

    async def _pump(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        async for data in source:
            await target.send_all(data)
        await target.aclose()


@asynccontextmanager
async def way_to(target: str) -> AsyncIterator[Way]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    way = Way(f"127.0.0.1:{listener.socket.getsockname()[1]}")
    async with trio.open_nursery() as nursery:
        carry = partial(way.carry, target=target)
        nursery.start_soon(trio.serve_listeners, carry, [listener])
        yield way
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("http", [False, True], ids=["TCP", "HTTP"])
async def test_a_node_is_given_again_what_the_balancer_could_not_bring_it(
    http: bool, tmp_path: Path, nursery: trio.Nursery
) -> None:
    thread = trio.to_thread.run_sync
    try:
        async with balancing(tmp_path, http=http) as balancer:
            place = next(place for place in balancer.places if place.side == "fleet")
            config = SuperLinkConfig(
                driver_api_address=ANY_PORT,
                grpc_rere_fleet_api_address=place.address,
                admin_address=place.admin,
            )
            link = await nursery.start(run_superlink, config)
            # HAProxy tells nobody when it has looked.
            while [up for up in await balancer.up() if up.side == "fleet"] != [place]:  # noqa: ASYNC110
                await trio.sleep(0.05)
            driver = Client(over_grpc(str(link.driver_address), "Driver"))
            async with way_to(balancer.addresses["fleet"]) as way:
                fleet = Client(over_grpc(way.address, "Fleet", timeout=_LOST))
                me = await thread(fleet.create_node)
                run_id = await thread(driver.create_run)
                [task_id] = await thread(driver.push_tasks, [task_ins(run_id, me)])
                way.loses = True
                with pytest.raises(NotAnswered):
                    await thread(fleet.pull_tasks, me)
            again = Client(over_grpc(balancer.addresses["fleet"], "Fleet", timeout=_LOST))
            [task] = await thread(again.pull_tasks, me)
            assert task.task_id == task_id
            await link.stop()
    except NoBalancer as error:
        pytest.skip(str(error))
