"""A whole SuperLink whose nodes are simulated: a real Driver API, and a backend of the tests."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import trio
from builders import pb_task_ins, task_ins
from test_superlink_flower import post
from workshop import Workshop, not_loaded

from superlink_trio import ConfigErrors, SuperLink, SuperLinkConfig, run_fleet_api, run_superlink
from superlink_trio.config import CannotStart, ConfigError
from superlink_trio.simulation.backend import AppNotLoaded, BackendDied
from superlink_trio.simulation.progress import Progress
from superlink_trio.state import SqliteState
from superlink_trio.supervision import Event, EventKind
from superlink_trio.wire import messages_pb2
from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.runs import Run

FLEET = "superlink/apis/fleet"


@pytest.fixture
def workshop(monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Stand in for the process backend."""
    workshop = Workshop()
    module: Any = SimpleNamespace(open_process_backend=workshop.open)
    monkeypatch.setitem(sys.modules, "superlink_trio.simulation.process.backend", module)
    return workshop


def config(**changes: Any) -> SuperLinkConfig:
    values = {
        "insecure": True,
        "driver_api_address": "127.0.0.1:0",
        "fleet_api_type": "vce",
        "client_app": "client:app",
        "num_supernodes": 3,
        "backend": "process",
    }
    return SuperLinkConfig(**{**values, **changes})


class Driver:
    """A plain gRPC driver; its calls wait in worker threads."""

    def __init__(self, link: SuperLink) -> None:
        self.channel = grpc.insecure_channel(
            str(link.driver_address), options=[("grpc.use_local_subchannel_pool", 1)]
        )

    async def __call__(self, method: str, request: Any, response: Any) -> Any:
        invoke = self.channel.unary_unary(
            f"/flwr.proto.Driver/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return await trio.to_thread.run_sync(lambda: invoke(request, timeout=20))

    async def nodes(self, run_id: int) -> Sequence[int]:
        request = pb.GetNodesRequest(run_id=run_id)
        answer = await self("GetNodes", request, pb.GetNodesResponse)
        return [node.node_id for node in answer.nodes]

    async def push(self, run_id: int, node_id: int, content: bytes) -> Sequence[str]:
        item = pb_task_ins(run_id, node_id)
        item.task.recordset = content
        request = pb.PushTaskInsRequest(task_ins_list=[item])
        return list((await self("PushTaskIns", request, pb.PushTaskInsResponse)).task_ids)

    async def pull(self, task_ids: Sequence[str]) -> list[pb.TaskRes]:
        request = pb.PullTaskResRequest(task_ids=task_ids)
        return list((await self("PullTaskRes", request, pb.PullTaskResResponse)).task_res_list)


@asynccontextmanager
async def driving(link: SuperLink) -> AsyncIterator[tuple[Driver, int]]:
    driver = Driver(link)
    try:
        run = await driver("CreateRun", pb.CreateRunRequest(), pb.CreateRunResponse)
        yield driver, run.run_id
    finally:
        driver.channel.close()


async def test_a_driver_works_with_simulated_nodes(
    workshop: Workshop, nursery: trio.Nursery
) -> None:
    link = await nursery.start(run_superlink, config())
    assert link.fleet_address is None
    assert link.status()[FLEET] is EventKind.READY
    async with driving(link) as (driver, run_id):
        nodes = await driver.nodes(run_id)
        assert len(nodes) == 3
        pushed = [id for node in nodes for id in await driver.push(run_id, node, b"x")]
        answers = await driver.pull(pushed)
        assert {answer.task.producer.node_id for answer in answers} == set(nodes)
        [again] = await driver.pull(await driver.push(run_id, nodes[0], b"y"))
        assert again.task.recordset == b"x."
    await link.stop()


async def test_runs_of_today_bring_their_app(workshop: Workshop, nursery: trio.Nursery) -> None:
    link = await nursery.start(run_superlink, config(client_app=None, port=0))
    assert link.fleet_address is None
    assert link.status()[FLEET] is EventKind.READY
    status, body = await post(link, "/v1/control/list-nodes", messages_pb2.ListNodesRequest())
    assert status == 200
    nodes = messages_pb2.ListNodesResponse.FromString(body).nodes_info
    assert {(node.name, node.status) for node in nodes} == {
        (f"simulated {partition_id}", "online") for partition_id in range(3)
    }
    assert not workshop.opened, "there is no run"
    await link.stop()


async def test_settings_of_the_backend_are_looked_at_before_there_is_a_run() -> None:
    faulty = config(client_app=None, port=0, backend_config={"client_resources": {"gpus": 1}})
    with pytest.raises(ExceptionGroup) as caught:
        await run_superlink(faulty)
    assert caught.group_contains(ConfigError, match="client_resources.gpus is nothing")


async def test_a_backend_that_dies_is_started_again(
    workshop: Workshop, nursery: trio.Nursery
) -> None:
    events: list[EventKind] = []

    def observe(event: Event) -> None:
        if event.path == FLEET:
            events.append(event.kind)

    async def run(task_status: trio.TaskStatus[SuperLink]) -> None:
        await run_superlink(config(), observer=observe, task_status=task_status)

    link = await nursery.start(run)
    async with driving(link) as (driver, run_id):
        node, *_ = await driver.nodes(run_id)
        [answer] = await driver.pull(await driver.push(run_id, node, b"bomb"))
        assert answer.task.error.code == 0
        assert len(workshop.opened) == 3
    await link.stop()
    again = [EventKind.FAILED, EventKind.RESTARTING, EventKind.STARTING, EventKind.READY]
    start, stop = [EventKind.STARTING, EventKind.READY], [EventKind.STOPPING, EventKind.STOPPED]
    assert events == [*start, *again, *again, *stop]


async def test_whoever_embeds_it_can_show_how_it_gets_on(
    workshop: Workshop, nursery: trio.Nursery
) -> None:
    watched: list[Progress] = []

    async def display(progress: Progress) -> None:
        watched.append(progress)

    async def run(task_status: trio.TaskStatus[SuperLink]) -> None:
        await run_superlink(config(), display=display, task_status=task_status)

    link = await nursery.start(run)
    async with driving(link) as (driver, run_id):
        node, *_ = await driver.nodes(run_id)
        await driver.pull(await driver.push(run_id, node, b"fail"))
    await link.stop()
    [progress] = watched
    assert (progress.nodes, progress.done, progress.failed) == (3, 1, 1)


async def test_nodes_can_be_simulated_beside_a_driver_api_over_one_database(
    workshop: Workshop, nursery: trio.Nursery, tmp_path: Path
) -> None:
    database = str(tmp_path / "state.db")
    link = await nursery.start(run_fleet_api, config(database=database))
    assert (link.driver_address, link.fleet_address) == (None, None)
    # What a Driver API does in a process of its own.
    state, stopping = SqliteState(database), trio.Event()
    await nursery.start(lambda task_status: state.serve(stopping=stopping, task_status=task_status))
    run_id = await state.create_run(Run())
    nodes = await state.online_nodes(run_id)
    assert len(nodes) == 3
    tasks = [task_ins(run_id, node, now=state.now()) for node in nodes]
    with trio.fail_after(4):
        task_ids = await state.store_task_ins(tasks)
        await state.await_task_res(task_ids, 10**9)
    await link.stop()
    assert list(await state.online_nodes(run_id)) == []
    stopping.set()


@pytest.mark.parametrize(
    ("refusal", "kind", "text"),
    [
        (
            not_loaded(),
            CannotStart,
            "the app cannot be loaded: client:app: ModuleNotFoundError: No module named 'torch'",
        ),
        (
            AppNotLoaded("client:app: module 'client' has no attribute 'app'"),
            CannotStart,
            "the app cannot be loaded: client:app: module 'client' has no attribute 'app'",
        ),
        (ValueError("num_cpus is -1"), ConfigError, "backend_config: num_cpus is -1"),
        (BackendDied("no memory"), CannotStart, "the process backend ended: no memory"),
    ],
)
async def test_what_keeps_it_from_starting_is_told(
    workshop: Workshop, refusal: Exception, kind: type[Exception], text: str
) -> None:
    workshop.refusal = refusal
    with pytest.raises(ExceptionGroup) as failure:
        await run_superlink(config())
    error: BaseException = failure.value
    while isinstance(error, ExceptionGroup):
        [error] = error.exceptions
    assert type(error) is kind
    assert str(error) == text
    if isinstance(error, CannotStart):
        assert error.details in ("", str(refusal).strip())
        assert bool(error.details) is ("Traceback" in str(refusal))


async def test_a_config_that_cannot_run_starts_nothing(workshop: Workshop) -> None:
    with pytest.raises(ConfigErrors):
        await run_superlink(config(num_supernodes=None))
    assert workshop.opened == []


PROGRAM = """
import sys
from types import SimpleNamespace
from workshop import Workshop
from superlink_trio import cli

backend = SimpleNamespace(open_process_backend=Workshop().open)
sys.modules["superlink_trio.simulation.process.backend"] = backend
sys.exit(cli.main(sys.argv[1:]))
"""
WORDS = ["--insecure", "--driver-api-address", "127.0.0.1:0", "--vce", "--num-supernodes", "3"]
WORDS += ["--client-app", "client:app", "--backend", "process"]


@pytest.mark.parametrize(
    ("terminal", "words", "live"),
    [("xterm", [], True), ("dumb", [], False), ("xterm", ["--log-format", "json"], False)],
)
def test_a_line_moves_on_terminals_that_people_look_at(
    terminal: str, words: list[str], live: bool
) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *WORDS, *words],
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": terminal},
        stderr=theirs,
    )
    os.close(theirs)
    shown = ""
    with open(ours, errors="replace") as screen, suppress(OSError):
        # Linux says EIO where the other side has closed.
        for line in screen:
            shown += line
            if "ready: " in line:
                process.terminate()
    assert process.wait(timeout=30) == 0
    assert "Simulating 3 nodes" in shown
    assert ("0/2 running" in shown) is live
