"""What a running SuperLink takes of another config, as its clients notice it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs
import grpc
import pytest
import trio
from builders import pb_node, pb_task_ins, pb_task_res

from superlink_trio import ConfigErrors, SuperLink, SuperLinkConfig, run_superlink
from superlink_trio.config import Address
from superlink_trio.wire import superlink_pb2 as pb

BUSY = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
async def link(nursery: trio.Nursery) -> AsyncIterator[SuperLink]:
    config = SuperLinkConfig(
        insecure=True,
        driver_api_address="127.0.0.1:0",
        grpc_rere_fleet_api_address="127.0.0.1:0",
        driver_hold=1000,
        hold=1000,
    )
    made = await nursery.start(run_superlink, config)
    yield made
    await made.stop()


class Client:
    """Calls one API in threads."""

    def __init__(self, address: Address | None, service: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(str(address), options=options)
        self._service = service

    def begin(self, method: str, request: Any) -> Any:
        call = self.channel.unary_unary(
            f"/flwr.proto.{self._service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=getattr(pb, f"{method}Response").FromString,
        )
        return call.future(request, timeout=20)

    async def call(self, method: str, request: Any) -> Any:
        return await trio.to_thread.run_sync(self.begin(method, request).result)

    async def status(self, method: str, request: Any) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as caught:
            await self.call(method, request)
        code: grpc.StatusCode = caught.value.code()
        return code


@pytest.fixture
def driver(link: SuperLink) -> Iterator[Client]:
    client = Client(link.driver_address, "Driver")
    yield client
    client.channel.close()


@pytest.fixture
def fleet(link: SuperLink) -> Iterator[Client]:
    client = Client(link.fleet_address, "Fleet")
    yield client
    client.channel.close()


async def join(fleet: Client) -> pb.Node:
    node: pb.Node = (await fleet.call("CreateNode", pb.CreateNodeRequest(ping_interval=30))).node
    return node


async def create_run(driver: Client) -> int:
    run_id: int = (await driver.call("CreateRun", pb.CreateRunRequest())).run_id
    return run_id


def push(run_id: int, node_id: int, **changes: Any) -> pb.PushTaskInsRequest:
    return pb.PushTaskInsRequest(task_ins_list=[pb_task_ins(run_id, node_id, **changes)])


async def change(link: SuperLink, **changes: Any) -> None:
    await link.reload(attrs.evolve(link.config, **changes))


async def test_a_pull_of_a_node_is_held_for_as_long_as_it_says_now(
    link: SuperLink, fleet: Client
) -> None:
    node = await join(fleet)
    await change(link, hold=0)
    pulled = await fleet.call("PullTaskIns", pb.PullTaskInsRequest(node=node))
    assert not pulled.task_ins_list


async def test_a_pull_of_a_driver_is_held_for_as_long_as_it_says_now(
    link: SuperLink, driver: Client, fleet: Client
) -> None:
    node, run_id = await join(fleet), await create_run(driver)
    pushed = await driver.call("PushTaskIns", push(run_id, node.node_id))
    await change(link, driver_hold=0)
    request = pb.PullTaskResRequest(node=pb_node(0), task_ids=pushed.task_ids)
    assert not (await driver.call("PullTaskRes", request)).task_res_list


async def test_so_many_nodes_are_registered_as_it_says_now(link: SuperLink, fleet: Client) -> None:
    await join(fleet)
    await change(link, max_nodes=1)
    assert await fleet.status("CreateNode", pb.CreateNodeRequest(ping_interval=30)) is BUSY
    await change(link, max_nodes=2)
    await join(fleet)


async def test_a_node_has_as_many_tasks_as_it_says_now(
    link: SuperLink, driver: Client, fleet: Client
) -> None:
    node, run_id = await join(fleet), await create_run(driver)
    await driver.call("PushTaskIns", push(run_id, node.node_id))
    await change(link, max_tasks_per_node=1)
    assert await driver.status("PushTaskIns", push(run_id, node.node_id)) is BUSY


async def test_so_much_is_stored_as_it_says_now(
    link: SuperLink, driver: Client, fleet: Client
) -> None:
    node, run_id = await join(fleet), await create_run(driver)
    large = push(run_id, node.node_id, recordset=bytes(100_000))
    await change(link, max_stored_size=100_000)
    assert await driver.status("PushTaskIns", large) is BUSY
    await change(link, hold=0)
    assert await driver.status("PushTaskIns", large) is BUSY
    await change(link, max_stored_size=None)
    await driver.call("PushTaskIns", large)
    pulled = await fleet.call("PullTaskIns", pb.PullTaskInsRequest(node=node))
    answer = pb_task_res(pulled.task_ins_list[0])
    await fleet.call("PushTaskRes", pb.PushTaskResRequest(task_res_list=[answer]))


async def test_so_many_calls_are_under_way_as_it_says_now(link: SuperLink, fleet: Client) -> None:
    first, second = await join(fleet), await join(fleet)
    held = fleet.begin("PullTaskIns", pb.PullTaskInsRequest(node=first))
    await fleet.call("Ping", pb.PingRequest(node=first, ping_interval=30))
    await change(link, max_calls=1)
    # The held one makes room.
    fleet.begin("PullTaskIns", pb.PullTaskInsRequest(node=second))
    assert not (await trio.to_thread.run_sync(held.result)).task_ins_list


async def test_what_needs_a_restart_is_said_and_stays(
    link: SuperLink, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "superlink_trio.config")
    await change(link, hold=2.5, grace=3, max_stored_size=2**30)
    assert caplog.messages == [
        "--grace stays 10 until a restart, it is to be 3",
        "--hold is 2.5 now, it was 1000",
        "--max-stored-size is 1GiB now, it was half of the memory, or of the disk",
    ]
    assert (link.config.hold, link.config.grace) == (2.5, 10)


async def test_nothing_new_is_said_as_well(
    link: SuperLink, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "superlink_trio.config")
    await change(link)
    assert caplog.messages == ["No option of the SuperLink has changed"]


async def test_a_config_that_cannot_run_changes_nothing(link: SuperLink) -> None:
    with pytest.raises(ConfigErrors):
        await change(link, hold=1, driver_client_ca="needs-tls.pem")
    assert link.config.hold == 1000
