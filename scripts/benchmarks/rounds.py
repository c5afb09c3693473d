"""Whole runs with unmodified Flower clients: on a SuperLink, and on `start_server`."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import trio
from peering.client import Client, over_grpc
from peering.processes import ROOT, Program, free_address, output, running

from benchmarks.comparison import Bench, NotMeasured, Side, expect, group, in_thread, superlink
from benchmarks.table import MEGABYTES, SECONDS, Figure, at_most, times_better
from superlink_trio.wire import rounds_pb2 as pb

PROGRAMS = ROOT / "tests" / "interop" / "programs"

_SCRIPT = Path(__file__).with_name("round_loop.py")
_MEGABYTES = 10
_IDLE = 100
_GOODBYE = pb.ClientMessage(disconnect_res=pb.DisconnectRes(reason=pb.DisconnectRes.ACK))
# Equal channels of one process would share a connection.
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@group(times=3)
async def rounds(bench: Bench, side: Side) -> list[Figure]:
    """3 rounds with 2 clients, the state in memory."""
    seconds = await _run(bench, side, clients=2, rounds=3)
    return [Figure("3 rounds, 2 clients of 1.9", seconds, SECONDS, at_most(0.12, SECONDS))]


@group(times=2)
async def rounds_sqlite(bench: Bench, side: Side) -> list[Figure]:
    """10 rounds with 4 clients, the state in SQLite."""
    seconds = await _run(bench, side, *side.database(bench.folder), clients=4, rounds=10)
    what = "10 rounds, 4 clients of 1.9, SQLite"
    return [Figure(what, seconds, SECONDS, at_most(1, SECONDS))]


async def _run(bench: Bench, side: Side, *options: str, clients: int, rounds: int) -> float:
    async with superlink(side, *options) as link, AsyncExitStack() as processes:
        for _ in range(clients):
            client = bench.client(PROGRAMS / "adder.py", link.fleet, "grpc-rere")
            await processes.enter_async_context(client)
        driver = Client(over_grpc(link.driver, "Driver"))
        run_id = await in_thread(driver.create_run)
        with trio.fail_after(300):
            while len(await in_thread(driver.nodes, run_id)) < clients:  # noqa: ASYNC110 (it polls)
                await trio.sleep(0.1)
        report = await server_app(bench, link.driver, clients=clients, rounds=rounds)
    return reported_seconds(report, rounds)


def reported_seconds(report: str, rounds: int) -> float:
    """Give what a run of `averager` took by its own account.

    Raises NotMeasured when not every round went well.
    """
    if report.count('"failures": 0}') != rounds:
        raise NotMeasured(f"not every round went well:\n{report}")
    finished = re.search(r"Run finished \d+ round\(s\) in ([0-9.]+)s", report)
    if finished is None:
        raise NotMeasured(f"the server-app did not finish:\n{report}")
    return float(finished[1])


async def server_app(bench: Bench, driver: str, *, clients: int, rounds: int) -> str:
    """Run `averager` under Flower's launcher of server-apps; give what it writes."""
    assert bench.peer is not None
    launcher = bench.peer.with_name("flower-server-app")
    return await output(
        *(launcher, "averager:app", "--dir", PROGRAMS, "--insecure", "--superlink", driver),
        seconds=300,
        stderr=subprocess.STDOUT,
        CLIENTS=str(clients),
        ROUNDS=str(rounds),
    )


@group(times=2)
async def federation(bench: Bench, side: Side) -> list[Figure]:
    """Rounds of federated averaging by `start_server`, with unmodified clients."""
    clients, rounds = (4, 2) if bench.quick else (20, 10)
    async with (
        _round_loop(bench, side, clients, rounds) as (server, address),
        AsyncExitStack() as processes,
    ):
        for _ in range(clients):
            client = bench.client(PROGRAMS / "adder.py", address, "grpc-bidi")
            await processes.enter_async_context(client)
        with trio.fail_after(600):
            found = await server.report("peak")
    if not math.isclose(found["loss"], rounds, rel_tol=1e-4):
        raise NotMeasured(f"the model of {side.name} is not the one that the rounds make")
    what = f"start_server, {rounds} rounds, {clients} clients of 1.9, {_MEGABYTES} MB model"
    return [
        Figure(f"{what}: peak memory", found["peak"], MEGABYTES, times_better(3.33)),
        Figure(f"{what}: processor time", found["cpu"], SECONDS, times_better(1.67)),
        Figure(f"{what}: the rounds", found["seconds"], SECONDS, times_better(1)),
    ]


@group(times=1, reference=0)
async def federation_stop(bench: Bench, side: Side) -> list[Figure]:
    """From SIGINT to the end of the process, with clients that wait."""
    dismissed = list[bool]()

    async def join() -> None:
        dismissed.append(await in_thread(_join, address))

    # One more than there are, so that nothing begins.
    loop = _round_loop(bench, side, _IDLE + 1, 1)
    async with loop as (server, address), trio.open_nursery() as clients:
        for _ in range(_IDLE):
            clients.start_soon(join)
        await server.line(f": {_IDLE} connected")
        await server.quiet()
        seconds = await server.terminate(signal.SIGINT)
    expect(sum(dismissed), _IDLE, "clients were told to disconnect")
    what = f"start_server: SIGINT to exit, {_IDLE} clients that wait, all told to disconnect"
    return [Figure(what, seconds, SECONDS, at_most(1, SECONDS))]


def _join(address: str) -> bool:
    """Join, and wait until the stream ends; say whether the last word was to disconnect."""
    told, dismissed = threading.Event(), False

    def answers() -> Iterator[pb.ClientMessage]:
        told.wait()
        yield _GOODBYE

    with grpc.insecure_channel(address, _OWN_CONNECTION) as channel:
        join = channel.stream_stream(
            "/flwr.proto.FlowerService/Join",
            request_serializer=pb.ClientMessage.SerializeToString,
            response_deserializer=pb.ServerMessage.FromString,
        )
        try:
            for instruction in join(answers(), wait_for_ready=True):
                dismissed = instruction.HasField("reconnect_ins")
                told.set()
        except grpc.RpcError:
            return False
    return dismissed


@asynccontextmanager
async def _round_loop(
    bench: Bench, side: Side, clients: int, rounds: int
) -> AsyncIterator[tuple[Program, str]]:
    python = sys.executable if side is bench.ours else bench.peer
    assert python is not None
    address, numbers = free_address(), map(str, (clients, rounds, _MEGABYTES))
    async with running("start_server", python, _SCRIPT, side.name, address, *numbers) as server:
        await server.listens(address)
        yield server, address
