"""A whole SuperLink, embedded: real ports, real gRPC."""

from __future__ import annotations

import re
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import pytest
import trio
from builders import pb_node, pb_task_ins, pb_task_res

from superlink_trio import ConfigErrors, SuperLink, SuperLinkConfig, run_superlink
from superlink_trio.config.address import Address
from superlink_trio.fleet import presence
from superlink_trio.supervision import Control, Event, EventKind
from superlink_trio.wire import superlink_pb2 as pb

PATHS = ["superlink", "superlink/state", "superlink/apis"] + [
    f"superlink/apis/{name}" for name in ("driver", "fleet")
]


def config(**changes: Any) -> SuperLinkConfig:
    addresses = {
        "driver_api_address": "127.0.0.1:0",
        "grpc_rere_fleet_api_address": "127.0.0.1:0",
    }
    return SuperLinkConfig(**{"insecure": True, **addresses, **changes})


class Peer:
    """A plain gRPC client; its calls wait in worker threads."""

    def __init__(self, address: Address | None, service: str) -> None:
        assert address is not None
        self._channel = grpc.insecure_channel(
            str(address), options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self._service = service

    def begin(self, method: str, request: Any, response: Any) -> Any:
        """Send a call after those sent before; gives its future."""
        invoke = self._channel.unary_unary(
            f"/flwr.proto.{self._service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return invoke.future(request, timeout=20)

    async def call(self, method: str, request: Any, response: Any) -> Any:
        return await trio.to_thread.run_sync(self.begin(method, request, response).result)

    def close(self) -> None:
        self._channel.close()


@asynccontextmanager
async def peers(link: SuperLink) -> AsyncIterator[tuple[Peer, Peer]]:
    driver, node = Peer(link.driver_address, "Driver"), Peer(link.fleet_address, "Fleet")
    try:
        yield driver, node
    finally:
        driver.close()
        node.close()


async def one_round(link: SuperLink) -> bytes:
    """Push one task to a new node, answer it, and give what the driver got."""
    async with peers(link) as (driver, node):
        request = pb.CreateNodeRequest(ping_interval=30)
        node_id = (await node.call("CreateNode", request, pb.CreateNodeResponse)).node.node_id
        run = await driver.call("CreateRun", pb.CreateRunRequest(), pb.CreateRunResponse)
        item = pb_task_ins(run.run_id, node_id)
        pushed = await driver.call(
            "PushTaskIns", pb.PushTaskInsRequest(task_ins_list=[item]), pb.PushTaskInsResponse
        )
        pulled = await node.call(
            "PullTaskIns", pb.PullTaskInsRequest(node=pb_node(node_id)), pb.PullTaskInsResponse
        )
        answer = pb_task_res(pulled.task_ins_list[0])
        await node.call(
            "PushTaskRes", pb.PushTaskResRequest(task_res_list=[answer]), pb.PushTaskResResponse
        )
        results = await driver.call(
            "PullTaskRes",
            pb.PullTaskResRequest(task_ids=pushed.task_ids),
            pb.PullTaskResResponse,
        )
        return bytes(results.task_res_list[0].task.recordset)


async def test_three_lines_embed_it(nursery: trio.Nursery) -> None:
    link = await nursery.start(run_superlink, config())
    assert await one_round(link) == b"result"
    await link.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_peers_are_written_as_addresses(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    caplog.set_level("INFO", "superlink_trio.fleet.api")
    link = await nursery.start(run_superlink, config(grpc_rere_fleet_api_address=f"{host}:0"))
    await one_round(link)
    await link.stop()
    [line] = [line for line in caplog.messages if "joined from" in line]
    assert re.search(rf"joined from {re.escape(host)}:\d+$", line)


@pytest.fixture
def ample_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stop wait for nodes until they have left, on a machine as busy as it likes."""
    monkeypatch.setattr(presence, "DRAIN_LIMIT", 20.0)
    monkeypatch.setattr(presence, "SILENCE", 20.0)


async def test_a_node_that_stops_at_the_same_time_signs_off(
    nursery: trio.Nursery, ample_time: None
) -> None:
    link = await nursery.start(run_superlink, config(grace=30))
    async with peers(link) as (_, node):
        request = pb.CreateNodeRequest(ping_interval=30)
        created = await node.call("CreateNode", request, pb.CreateNodeResponse)
        pull = pb.PullTaskInsRequest(node=created.node)
        held = node.begin("PullTaskIns", pull, pb.PullTaskInsResponse)
        async with trio.open_nursery() as stopping:
            stopping.start_soon(link.stop)
            assert not (await trio.to_thread.run_sync(held.result)).task_ins_list
            leave = pb.DeleteNodeRequest(node=created.node)
            await node.call("DeleteNode", leave, pb.DeleteNodeResponse)


async def test_it_says_how_it_is(nursery: trio.Nursery) -> None:
    link = await nursery.start(run_superlink, config())
    assert dict(link.status()) == dict.fromkeys(PATHS, EventKind.READY)
    assert link.driver_address.port != 0
    assert link.fleet_address.host == "127.0.0.1"
    await link.stop()
    assert set(link.status().values()) == {EventKind.STOPPED}


async def test_it_starts_and_stops_in_order(nursery: trio.Nursery) -> None:
    events: list[Event] = []
    link = await nursery.start(partial(run_superlink, config(), observer=events.append))
    await link.stop()
    of_kind: Callable[[EventKind], list[str]] = lambda kind: [  # noqa: E731
        event.path.rpartition("/")[2] for event in events if event.kind is kind
    ]
    assert of_kind(EventKind.READY) == ["state", "driver", "fleet", "apis", "superlink"]
    assert of_kind(EventKind.STOPPED)[-3:] == ["apis", "state", "superlink"]
    assert {event.kind for event in events} == {
        EventKind.STARTING,
        EventKind.READY,
        EventKind.STOPPING,
        EventKind.STOPPED,
    }


async def test_cancelling_is_a_graceful_stop() -> None:
    events: list[Event] = []
    async with trio.open_nursery() as nursery:
        link = await nursery.start(partial(run_superlink, config(), observer=events.append))
        nursery.cancel_scope.cancel()
    assert set(link.status().values()) == {EventKind.STOPPED}


async def test_a_control_stops_it_before_there_is_a_handle() -> None:
    control = Control()
    seen: dict[str, EventKind] = {}

    def stop_soon(event: Event) -> None:
        seen[event.path] = event.kind
        if event.path == "superlink/apis/driver" and event.kind is EventKind.READY:
            control.stop()
            control.cancel()

    await run_superlink(config(), control=control, observer=stop_soon)
    assert "superlink/apis/fleet" not in seen
    assert seen["superlink"] is EventKind.STOPPED


async def test_a_control_that_was_stopped_starts_nothing() -> None:
    control = Control()
    control.stop()
    events: list[Event] = []
    await run_superlink(config(), control=control, observer=events.append)
    assert events == []


@pytest.mark.alone
async def test_stopping_answers_held_calls_at_once(nursery: trio.Nursery) -> None:
    link = await nursery.start(run_superlink, config(hold=1000))
    async with peers(link) as (_, node):
        request = pb.CreateNodeRequest(ping_interval=30)
        created = await node.call("CreateNode", request, pb.CreateNodeResponse)

        pull = pb.PullTaskInsRequest(node=created.node)
        held = node.begin("PullTaskIns", pull, pb.PullTaskInsResponse)
        # When a ping that was sent after it is answered, the pull is there.
        await node.call("Ping", pb.PingRequest(node=created.node), pb.PingResponse)
        started = trio.current_time()
        await link.stop()
        pulled = await trio.to_thread.run_sync(held.result)
    assert pulled == pb.PullTaskInsResponse()
    assert trio.current_time() - started < 5


async def test_two_superlinks_live_in_one_program(nursery: trio.Nursery) -> None:
    first = await nursery.start(run_superlink, config())
    second = await nursery.start(run_superlink, config())
    assert await one_round(first) == b"result"
    assert await one_round(second) == b"result"
    await first.stop()
    assert await one_round(second) == b"result"
    await second.stop()


async def test_it_can_be_started_again_on_the_same_ports(nursery: trio.Nursery) -> None:
    link = await nursery.start(run_superlink, config())
    same = config(
        driver_api_address=link.driver_address, grpc_rere_fleet_api_address=link.fleet_address
    )
    await link.stop()
    again = await nursery.start(run_superlink, same)
    assert again.driver_address == link.driver_address
    assert await one_round(again) == b"result"
    await again.stop()


async def test_a_taken_port_is_named_and_nothing_is_left_running() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        events: list[Event] = []
        bad = config(grpc_rere_fleet_api_address=f"127.0.0.1:{port}")
        with pytest.raises(ExceptionGroup) as caught:
            await run_superlink(bad, observer=events.append)
    addresses = caught.value.split(OSError)[0]
    assert addresses is not None
    error: BaseException = addresses
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    assert f"cannot listen on 127.0.0.1:{port}" in str(error)
    assert error.__notes__ == ["needed by the Fleet API"]
    last = {event.path: event.kind for event in events}
    assert last["superlink/apis/driver"] is EventKind.STOPPED
    assert last["superlink/state"] is EventKind.STOPPED


async def test_a_config_that_cannot_run_starts_nothing() -> None:
    events: list[Event] = []
    with pytest.raises(ConfigErrors) as caught:
        await run_superlink(
            config(insecure=False, driver_api_address="0.0.0.0:0"), observer=events.append
        )
    assert events == []
    assert "driver_api_address" in str(caught.value.exceptions[0])


async def test_without_a_word_it_serves_this_machine(nursery: trio.Nursery) -> None:
    link = await nursery.start(run_superlink, config(insecure=False))
    assert await one_round(link) == b"result"
    await link.stop()


async def test_a_cancelled_start_leaves_nothing_behind() -> None:
    for patience in range(0, 40, 4):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_after_checkpoints, scope, patience)
                link = await nursery.start(run_superlink, config())
                await link.stop()


async def _cancel_after_checkpoints(scope: trio.CancelScope, patience: int) -> None:
    for _ in range(patience):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def test_its_limits_are_those_of_its_config(nursery: trio.Nursery) -> None:
    limits = {"max_nodes": 1, "max_tasks_per_node": 2, "max_stored_size": 60_000}
    limits |= {"max_message_size": 100_000, "max_header_size": 2000}
    link = await nursery.start(run_superlink, config(**limits))
    async with peers(link) as (driver, node):
        join = pb.CreateNodeRequest(ping_interval=30)
        one = (await node.call("CreateNode", join, pb.CreateNodeResponse)).node
        run = await driver.call("CreateRun", pb.CreateRunRequest(), pb.CreateRunResponse)

        def push(count: int, size: int) -> pb.PushTaskInsRequest:
            tasks = [pb_task_ins(run.run_id, one.node_id, recordset=bytes(size))] * count
            return pb.PushTaskInsRequest(task_ins_list=tasks)

        for peer, method, request, reason in (
            (node, "CreateNode", join, "--max-nodes"),
            (driver, "PushTaskIns", push(3, 1), "--max-tasks-per-node"),
            (driver, "PushTaskIns", push(1, 40_000), "--max-stored-size"),
            (driver, "PushTaskIns", push(1, 100_001), "message larger than max"),
            (node, "GetFab", pb.GetFabRequest(hash_str="x" * 100_001), "message larger than max"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                await peer.call(method, request, pb.PushTaskInsResponse)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert reason in str(caught.value.details())
        await driver.call("PushTaskIns", push(2, 1000), pb.PushTaskInsResponse)
    await link.stop()


async def test_the_log_says_how_much_may_be_stored(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "superlink_trio")
    link = await nursery.start(run_superlink, config())
    [line] = [line for line in caplog.messages if "--max-stored-size" in line]
    assert "half of the memory" in line
    await link.stop()


@pytest.mark.parametrize("kind", ["grpc-rere", "rest"])
async def test_two_apis_share_the_files_that_a_process_may_open(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    caplog.set_level("INFO")
    given = config(
        max_connections=2**31 - 1, fleet_api_type=kind, rest_fleet_api_address="127.0.0.1:0"
    )
    link = await nursery.start(run_superlink, given)
    await link.stop()
    told = [re.search(r"at most (\d+) connections", line) for line in caplog.messages]
    fitting = [int(found[1]) for found in told if found]
    assert len(fitting) == 2
    assert sum(fitting) < files


async def test_workers_are_for_the_program() -> None:
    config = SuperLinkConfig(workers=2, database="state.db")
    with pytest.raises(ConfigErrors) as caught:
        await run_superlink(config)
    assert "2 are processes of the program superlink-trio" in str(caught.value.faults[0])
