"""A whole SuperLink whose Fleet API is REST: real ports, real HTTP, real gRPC for the driver."""

from __future__ import annotations

import re
import socket
import ssl
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from builders import pb_node, pb_task_ins, pb_task_res
from certificates import Authority
from transport.http.clients import FLEET, Http1, connect, connect_tls

from superlink_trio import SuperLink, SuperLinkConfig, run_superlink
from superlink_trio.fleet import presence
from superlink_trio.supervision import EventKind
from superlink_trio.wire import superlink_pb2 as pb


def config(**changes: Any) -> SuperLinkConfig:
    addresses = {"driver_api_address": "127.0.0.1:0", "rest_fleet_api_address": "127.0.0.1:0"}
    return SuperLinkConfig(**{"insecure": True, "fleet_api_type": "rest", **addresses, **changes})


async def post(link: SuperLink, call: str, request: Any, response: Any) -> Any:
    assert link.fleet_address is not None
    async with await connect(link.fleet_address) as stream:
        answer = await Http1(stream).post(FLEET + call, request.SerializeToString())
    assert (answer.status, answer.headers["content-type"]) == (200, "application/protobuf")
    return response.FromString(answer.body)


async def drive(link: SuperLink, method: str, request: Any, response: Any) -> Any:
    channel = grpc.insecure_channel(
        str(link.driver_address), options=[("grpc.use_local_subchannel_pool", 1)]
    )
    with channel:
        call = channel.unary_unary(
            f"/flwr.proto.Driver/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return await trio.to_thread.run_sync(partial(call, request, timeout=20))


async def join(link: SuperLink) -> Any:
    request = pb.CreateNodeRequest(ping_interval=30)
    return (await post(link, "create-node", request, pb.CreateNodeResponse)).node


async def push_task(link: SuperLink, node_id: int) -> Any:
    run = await drive(link, "CreateRun", pb.CreateRunRequest(), pb.CreateRunResponse)
    request = pb.PushTaskInsRequest(task_ins_list=[pb_task_ins(run.run_id, node_id)])
    return await drive(link, "PushTaskIns", request, pb.PushTaskInsResponse)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_peers_are_written_as_addresses(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    caplog.set_level("INFO", "superlink_trio.fleet.api")
    link = await nursery.start(run_superlink, config(rest_fleet_api_address=f"{host}:0"))
    await join(link)
    await link.stop()
    [line] = [line for line in caplog.messages if "joined from" in line]
    assert re.search(rf"joined from {re.escape(host)}:\d+$", line)


async def test_a_round(nursery: trio.Nursery) -> None:
    link = await nursery.start(run_superlink, config())
    node = await join(link)
    ping = pb.PingRequest(node=node, ping_interval=30)
    assert (await post(link, "ping", ping, pb.PingResponse)).success
    pushed = await push_task(link, node.node_id)
    pull = pb.PullTaskInsRequest(node=pb_node(node.node_id))
    [task_ins] = (await post(link, "pull-task-ins", pull, pb.PullTaskInsResponse)).task_ins_list
    answer = pb.PushTaskResRequest(task_res_list=[pb_task_res(task_ins)])
    await post(link, "push-task-res", answer, pb.PushTaskResResponse)
    request = pb.PullTaskResRequest(task_ids=pushed.task_ids)
    results = await drive(link, "PullTaskRes", request, pb.PullTaskResResponse)
    assert bytes(results.task_res_list[0].task.recordset) == b"result"
    await link.stop()
    assert set(link.status().values()) == {EventKind.STOPPED}


async def test_a_held_pull_gets_the_task_when_it_comes(nursery: trio.Nursery) -> None:
    link = await nursery.start(run_superlink, config(hold=1000))
    node = await join(link)
    pulled: list[Any] = []

    async def pull() -> None:
        request = pb.PullTaskInsRequest(node=node)
        pulled.append(await post(link, "pull-task-ins", request, pb.PullTaskInsResponse))

    async with trio.open_nursery() as pulls:
        pulls.start_soon(pull)
        await push_task(link, node.node_id)
    assert len(pulled[0].task_ins_list) == 1
    await link.stop()


async def test_a_node_that_stops_at_the_same_time_signs_off(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "DRAIN_LIMIT", 20.0)
    monkeypatch.setattr(presence, "SILENCE", 20.0)
    link = await nursery.start(run_superlink, config(grace=30))
    node = await join(link)
    async with trio.open_nursery() as stopping:
        stopping.start_soon(link.stop)
        while link.status()["superlink/apis/fleet"] is not EventKind.STOPPING:
            await trio.lowlevel.checkpoint()
        await post(link, "delete-node", pb.DeleteNodeRequest(node=node), pb.DeleteNodeResponse)


async def test_a_task_whose_client_went_away_is_given_again(nursery: trio.Nursery) -> None:
    link = await nursery.start(run_superlink, config(hold=1000))
    node = await join(link)
    request = pb.PullTaskInsRequest(node=node)
    with trio.move_on_after(0.2):
        await post(link, "pull-task-ins", request, pb.PullTaskInsResponse)
    await push_task(link, node.node_id)
    pulled = await post(link, "pull-task-ins", request, pb.PullTaskInsResponse)
    assert len(pulled.task_ins_list) == 1
    await link.stop()


@pytest.mark.parametrize("path", ["create-node", "delete-node"])
async def test_the_delete_node_of_every_release_deletes(nursery: trio.Nursery, path: str) -> None:
    link = await nursery.start(run_superlink, config())
    node = await join(link)
    run = await drive(link, "CreateRun", pb.CreateRunRequest(), pb.CreateRunResponse)
    online = partial(
        drive, link, "GetNodes", pb.GetNodesRequest(run_id=run.run_id), pb.GetNodesResponse
    )
    assert len((await online()).nodes) == 1
    await post(link, path, pb.DeleteNodeRequest(node=node), pb.DeleteNodeResponse)
    assert len((await online()).nodes) == 0
    await link.stop()


async def test_stopping_answers_held_pulls(nursery: trio.Nursery) -> None:
    link = await nursery.start(run_superlink, config(hold=1000))
    node = await join(link)
    stopped = trio.Event()

    async def pull() -> None:
        request = pb.PullTaskInsRequest(node=node)
        pulled = await post(link, "pull-task-ins", request, pb.PullTaskInsResponse)
        assert pulled == pb.PullTaskInsResponse()
        stopped.set()

    async with trio.open_nursery() as pulls:
        pulls.start_soon(pull)
        ping = pb.PingRequest(node=node)
        # Comes after the pull, over a connection that was made after it.
        await trio.testing.wait_all_tasks_blocked(0.05)
        await post(link, "ping", ping, pb.PingResponse)
        with trio.fail_after(5):
            await link.stop()
            await stopped.wait()


async def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        bad = config(rest_fleet_api_address=f"127.0.0.1:{port}")
        with pytest.raises(ExceptionGroup) as caught:
            await run_superlink(bad)
    assert caught.group_contains(OSError, match=f"cannot listen on 127.0.0.1:{port}")


async def test_over_https_certificates_are_reloaded_under_open_connections(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    authority.issue()
    _, certificate, key = authority.files
    link = await nursery.start(run_superlink, config(ssl_certfile=certificate, ssl_keyfile=key))
    assert link.fleet_address is not None
    context = ssl.create_default_context(cadata=authority.pem.decode())

    async def open_connection() -> tuple[Http1, bytes | None]:
        stream = await connect_tls(link.fleet_address, context, "http/1.1")
        presented: bytes | None = stream.getpeercert(binary_form=True)
        return Http1(stream), presented

    ping = pb.PingRequest(node=pb_node(1)).SerializeToString()
    old, before = await open_connection()
    assert (await old.post(FLEET + "ping", ping)).status == 200
    authority.issue()
    await link.reload()
    new, after = await open_connection()
    assert before != after
    for client in (old, new):
        assert (await client.post(FLEET + "ping", ping)).status == 200

    key.write_text("junk")
    await link.reload()
    newest, still = await open_connection()
    assert still == after
    for client in (old, new, newest):
        await client.stream.aclose()
    await link.stop()


async def test_a_driver_is_told_of_an_answer_that_found_no_room(nursery: trio.Nursery) -> None:
    link = await nursery.start(run_superlink, config(max_stored_size=20_000, driver_hold=10))
    node = await join(link)
    pushed = await push_task(link, node.node_id)
    pull = pb.PullTaskInsRequest(node=pb_node(node.node_id))
    [task_ins] = (await post(link, "pull-task-ins", pull, pb.PullTaskInsResponse)).task_ins_list
    answer = pb.PushTaskResRequest(task_res_list=[pb_task_res(task_ins, recordset=bytes(20_000))])
    assert link.fleet_address is not None
    async with await connect(link.fleet_address) as stream:
        refused = await Http1(stream).post(FLEET + "push-task-res", answer.SerializeToString())
    assert refused.status == 507
    assert "--max-stored-size" in refused.problem["detail"]
    request = pb.PullTaskResRequest(task_ids=pushed.task_ids)
    [told] = (await drive(link, "PullTaskRes", request, pb.PullTaskResResponse)).task_res_list
    assert told.task.error.code == 0
    assert "there was no room for it" in told.task.error.reason
    await link.stop()
