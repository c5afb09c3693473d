"""Today's Flower: runs of `flwr run` with unmodified nodes, signed calls, and nodes that wait."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

import attrs
import trio
from google.protobuf.message import Message
from peering.processes import ANY_PORT, CHECKOUT, Launch, Program, free_address, launching
from peering.signing import Signer
from peering.today import ADDING, NEWEST, name_superlink, processes, surroundings

from benchmarks.calls import WARM_UP, h2load, need_h2load
from benchmarks.comparison import Bench, NotMeasured, Side, expect, group, in_thread
from benchmarks.table import (
    CALLS_PER_SECOND,
    MEGABYTES,
    MILLISECONDS,
    PERCENT,
    PROCESSES,
    SECONDS,
    Figure,
    at_least,
    at_most,
)
from superlink_trio.wire import messages_pb2 as pb

_NODES, _ARRAYS = 2, 122
# No run takes longer, in seconds, however busy the machine is.
_LONGEST_RUN = 600

_GRACE = 2.0
# What has not ended this long after SIGTERM is not waited for, in seconds.
_NEVER = 15.0

_CALLS, _WAITING = 3_000, 1_000
# Seconds: no node is to be offline for as long as anything here takes.
_INTERVAL = 1800.0


@attrs.frozen
class Federation:
    """A SuperLink of either side, with nodes, and who runs apps on it."""

    program: Program
    address: str
    home: Path
    launch: Launch
    variables: dict[str, str]

    async def run(self, *, rounds: int, arrays: int) -> tuple[float, float]:
        """Run an app to its end; give the seconds of its rounds, and those of `flwr run` in all.

        Raises NotMeasured when it does not end well.
        """
        begun = time.monotonic()
        run = await self.start(nodes=_NODES, rounds=rounds, arrays=arrays)
        with trio.fail_after(_LONGEST_RUN):
            await run.end()
        took, report = time.monotonic() - begun, "\n".join(run.lines)
        finished = re.search(r"Strategy execution finished in ([0-9.]+)s", report)
        sums = [float(arrays * number) for number in range(1, rounds + 1)]
        if f'"sum": {sums}' not in report or finished is None:
            raise NotMeasured(f"a run did not go well:\n{report}")
        return float(finished[1]), took

    async def start(self, **config: object) -> Program:
        """Start `flwr run --stream`, which ends with the run."""
        # It rewrites the project of what it runs.
        app = Path(tempfile.mkdtemp(dir=self.home)) / "app"
        shutil.copytree(ADDING, app)
        words = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
        command = ("flwr", "run", app, "mine", "--stream", "--run-config", words)
        return await self.launch("flwr run", *command, **self.variables)


@asynccontextmanager
async def _federation(
    bench: Bench, side: Side, *options: str, nodes: int = _NODES
) -> AsyncIterator[Federation]:
    """Run a SuperLink and nodes of today's Flower; nothing of it outlives the block.

    Raises NotMeasured when it needs Flower, and there is to be none.
    """
    ours = side is bench.ours
    home = Path(tempfile.mkdtemp(dir=bench.folder))
    alone = ours and not nodes
    programs = home if alone else (await bench.environment(version=NEWEST)).parent
    variables, address = surroundings(programs, home), free_address()
    port = ("--insecure", "--port", address.rpartition(":")[2])
    try:
        async with launching(sessions=True) as launch:
            if ours:
                others = ("--driver-api-address", ANY_PORT, "--fleet-api-address", ANY_PORT)
                command = (*side.command, *port, *others, *options)
                program = await launch("ours", *command, **variables, PYTHONPATH=CHECKOUT)
            else:
                command = (programs / "flower-superlink", *port, "--host", "127.0.0.1", *options)
                program = await launch("reference", *command, **variables)
            await program.listens(address)
            name_superlink(home, address)
            for _ in range(nodes):
                own = free_address().rpartition(":")[2]
                command = (programs / "flower-supernode", "--insecure", "--superlink", address)
                node = await launch("node", *command, "--port", own, **variables)
                with trio.fail_after(_LONGEST_RUN):
                    await node.line("SuperNode ID")
            yield Federation(program, address, home, launch, variables)
    finally:
        for pid in processes(home):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@group(times=2, reference=1)
async def today(bench: Bench, side: Side) -> list[Figure]:
    """Runs of Flower 1.42 with 2 nodes, of a small model and of one with 122 arrays; memory."""
    rounds = 1 if bench.quick else 3
    async with _federation(bench, side) as federation:
        # Nodes install the app once.
        await federation.run(rounds=1, arrays=1)
        small, wall = await federation.run(rounds=rounds, arrays=1)
        used = federation.program.cpu_seconds()
        large, _ = await federation.run(rounds=rounds, arrays=_ARRAYS)
        used = federation.program.cpu_seconds() - used
        memory = federation.program.resident() / 1e6
    what = f"1.42: {rounds} rounds, {_NODES} nodes"
    many = f"{what}, {_ARRAYS} arrays"
    return [
        Figure(what, small, SECONDS, at_most(13, SECONDS)),
        Figure(f"{what}: `flwr run` in all", wall, SECONDS),
        Figure(many, large, SECONDS),
        Figure(f"{many}: the SuperLink's processor time", used, SECONDS, at_most(3, SECONDS)),
        Figure(f"{what}: memory after these", memory, MEGABYTES, at_most(80, MEGABYTES)),
    ]


@group(times=2, reference=1)
async def today_stop(bench: Bench, side: Side) -> list[Figure]:
    """SIGTERM in the middle of `flwr run --stream`: to the end, and what is left a second later."""
    grace = ("--grace", f"{_GRACE:g}") if side is bench.ours else ()
    took = math.inf
    async with _federation(bench, side, *grace) as federation:
        run = await federation.start(nodes=_NODES, stall=60)
        with trio.fail_after(_LONGEST_RUN):
            await run.line("configure_train")
        with trio.move_on_after(_NEVER):
            took = await federation.program.terminate()
        await trio.sleep(1)
        left = len(processes(federation.home, "serverapp"))
    what = "1.42: SIGTERM in a run"
    return [
        Figure(
            f"{what}, to exit, ours with --grace {_GRACE:g} (∞: alive after {_NEVER:.0f} s)",
            *(took, SECONDS, at_most(_GRACE + 0.5, SECONDS)),
        ),
        Figure(f"{what}, what is left of the run", left, PROCESSES, at_most(0, PROCESSES)),
    ]


@group(times=3, reference=1)
async def today_calls(bench: Bench, side: Side) -> list[Figure]:
    """Signed calls that are answered at once (heartbeats): how long one takes, and how many."""
    need_h2load()
    async with _federation(bench, side, nodes=0) as federation:
        address, program = federation.address, federation.program
        node = await in_thread(_Node.joined, address)
        one = await in_thread(node.way, 100 if bench.quick else 500)
        call = node.heartbeat
        await in_thread(node.prove)
        headers = {**_MEDIA, **node.signer.headers(time.time())}
        options = ("--h1", "-c", "8", *_fields(headers))
        url = f"http://{address}/v1/fleet/{_HEARTBEAT}"
        used = program.cpu_seconds()
        with_cookie = (*options, *_fields(node.cookies), url)
        rate, number, _ = await h2load(bench, *with_cookie, body=call, number=_CALLS)
        used = program.cpu_seconds() - used
        figures = [
            Figure("1.42: a signed call", one, MILLISECONDS, at_most(1.5, MILLISECONDS)),
            Figure("1.42: signed calls, 8 connections", rate, CALLS_PER_SECOND),
            Figure(
                "1.42: signed calls for a second of processor time",
                *((WARM_UP + number) / used, CALLS_PER_SECOND, at_least(2000, CALLS_PER_SECOND)),
            ),
        ]
        if side is bench.ours:
            rate, *_ = await h2load(bench, *options, url, body=call, number=_CALLS)
            what = "1.42: signed calls, 8 connections, each signature checked"
            figures.append(Figure(what, rate, CALLS_PER_SECOND))
    return figures


@group(times=1, reference=0)
async def today_parked(bench: Bench, side: Side) -> list[Figure]:
    """What many nodes of 1.42 cost while their pulls are held, over HTTP."""
    number = _WAITING // 10 if bench.quick else _WAITING
    async with _federation(bench, side, nodes=0) as federation:
        program = federation.program
        before = program.resident()
        async with _waiting_nodes(federation.address, number) as pulls:
            await program.quiet()
            memory = (program.resident() - before) / 1e6
            idle = await program.idle_cpu(3 if bench.quick else 10)
            stopped = await program.terminate()
    expect(sum(pulls), number, "held pulls were answered")
    what = f"1.42: {number:,} nodes with held pulls"
    return [
        Figure(f"{what}: memory", memory, MEGABYTES, at_most(45, MEGABYTES)),
        Figure(f"{what}: processor time while idle", idle, PERCENT, at_most(2, PERCENT)),
        Figure(f"{what}: SIGTERM to exit, all answered", stopped, SECONDS),
    ]


_HEARTBEAT = "send-node-heartbeat"


@attrs.define
class _Node:
    """A node that makes signed calls over one connection, and keeps its cookies."""

    connection: HTTPConnection
    signer: Signer = attrs.field(factory=Signer)
    node_id: int = 0
    cookies: dict[str, str] = attrs.field(factory=dict)

    @classmethod
    def joined(cls, address: str) -> _Node:
        """Give one that is online."""
        node = cls(HTTPConnection(address, timeout=60))
        key = node.signer.public
        node.call("register-node", pb.RegisterNodeFleetRequest(public_key=key))
        activate = pb.ActivateNodeRequest(public_key=key, heartbeat_interval=_INTERVAL)
        answer, _ = node.call("activate-node", activate)
        node.node_id = pb.ActivateNodeResponse.FromString(answer).node_id
        return node

    @property
    def heartbeat(self) -> bytes:
        """The call that does least."""
        node = pb.Node(node_id=self.node_id)
        return pb.SendNodeHeartbeatRequest(
            node=node, heartbeat_interval=_INTERVAL
        ).SerializeToString()

    def prove(self) -> None:
        """Have a new cookie, where the SuperLink gives any."""
        self.cookies = {}
        self.call(_HEARTBEAT, pb.SendNodeHeartbeatRequest.FromString(self.heartbeat))

    def way(self, number: int) -> float:
        """Make so many calls, one after the other; give the median in milliseconds."""
        request = pb.SendNodeHeartbeatRequest.FromString(self.heartbeat)
        return 1000 * median(self.call(_HEARTBEAT, request)[1] for _ in range(number))

    def call(self, name: str, request: Message) -> tuple[bytes, float]:
        """Make a call; give the answer, and the seconds from its bytes' leaving to that."""
        headers = {**_MEDIA, **self.signer.headers(time.time()), **self.cookies}
        body = request.SerializeToString()
        begun = time.perf_counter()
        self.connection.request("POST", f"/v1/fleet/{name}", body, headers)
        response = self.connection.getresponse()
        answer = response.read()
        took = time.perf_counter() - begun
        if response.status != 200:
            raise NotMeasured(f"{name} was answered with {response.status}: {answer!r}")
        if cookie := response.getheader("set-cookie"):
            self.cookies = {"cookie": cookie.partition(";")[0]}
        return answer, took


_MEDIA = {"Content-Type": "application/protobuf", "Accept": "application/protobuf"}


def _fields(headers: dict[str, str]) -> tuple[str, ...]:
    """Give headers as h2load takes them."""
    pairs = [f"{name}: {value}" for name, value in headers.items()]
    return tuple(word for pair in pairs for word in ("-H", pair))


@asynccontextmanager
async def _waiting_nodes(address: str, number: int) -> AsyncIterator[list[bool]]:
    """Let nodes pull; the block ends the SuperLink. Give of each whether it was answered."""
    answered = list[bool]()
    async with trio.open_nursery() as nursery:
        for _ in range(number):
            node = await in_thread(_Node.joined, address)
            await nursery.start(_pull, node, answered)
        yield answered


async def _pull(node: _Node, answered: list[bool], *, task_status: trio.TaskStatus[None]) -> None:
    """Pull over the node's connection; its call is under way when this starts."""
    request = pb.PullMessagesRequest(node=pb.Node(node_id=node.node_id)).SerializeToString()
    headers = {**_MEDIA, **node.signer.headers(time.time()), **node.cookies}
    lines = [f"{name}: {value}" for name, value in headers.items()]
    lines += ["Host: superlink", f"Content-Length: {len(request)}", "", ""]
    head = "\r\n".join(["POST /v1/fleet/pull-messages HTTP/1.1", *lines]).encode()
    async with trio.SocketStream(trio.socket.from_stdlib_socket(node.connection.sock)) as stream:
        await stream.send_all(head + request)
        task_status.started()
        received = b""
        while data := await stream.receive_some():
            received += data
    answered.append(b"HTTP/1.1 200" in received)
