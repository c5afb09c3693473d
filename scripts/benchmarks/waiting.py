"""Starting, stopping, and nodes that wait for work: each its own connection with one held call."""

from __future__ import annotations

import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from hyperframe.frame import DataFrame, HeadersFrame, PingFrame, SettingsFrame
from peering.client import Client, over_grpc
from peering.http2 import (
    PREFACE,
    grpc_call,
    grpc_fields,
    grpc_message,
    serialized,
    take_frames,
)
from peering.processes import SuperLink

from benchmarks.comparison import Bench, NotMeasured, Side, expect, group, in_thread, superlink
from benchmarks.table import KILOBYTES, PERCENT, SECONDS, Figure, at_most
from superlink_trio.wire import superlink_pb2 as pb

_HELD = 1_000
_NODES = 10_000
# Files that a process of either end has open besides its connections, with room to spare.
_OTHER_FILES = 200
# Long enough to park everybody and to watch; no hold may end of itself meanwhile.
HOLD = ("--hold", "300")
# 20 s after a connection has come gRPC has to put a timer away, once.
SETTLING = 25

# Without a dynamic table every block of headers can be read by itself.
_PLAIN = {SettingsFrame.HEADER_TABLE_SIZE: 0}
_STATUS_OK = b"\x0bgrpc-status\x010"


@group(times=7)
async def start(bench: Bench, side: Side) -> list[Figure]:
    """From the start of the process until both ports accept connections."""
    begun = time.monotonic()
    async with superlink(side):
        took = time.monotonic() - begun
    return [Figure("start to listening", took, SECONDS, at_most(0.4, SECONDS))]


@group(times=5)
async def stop(bench: Bench, side: Side) -> list[Figure]:
    """From SIGTERM to the end of the process, with nothing to do and with held calls."""
    async with superlink(side) as link:
        await link.program.quiet()
        figures = [Figure("SIGTERM to exit, idle", await link.program.terminate(), SECONDS)]
    if side is bench.ours:
        async with superlink(side) as link, parked_nodes(link, _HELD):
            took = await link.program.terminate()
        what = f"SIGTERM to exit, {_HELD:,} held calls, all answered OK and empty"
        figures.append(Figure(what, took, SECONDS, at_most(1, SECONDS)))
    return figures


@group(times=1, reference=0)
async def parked(bench: Bench, side: Side) -> list[Figure]:
    """What many nodes cost while they wait, and how long it takes to let them go."""
    raise_file_limit(_NODES)
    async with superlink(side, *HOLD) as link:
        before = link.program.resident()
        async with parked_nodes(link, _NODES) as answers:
            memory = (link.program.resident() - before) / _NODES / 1e3
            if not bench.quick:
                await trio.sleep(SETTLING)
            idle = await link.program.idle_cpu(3 if bench.quick else 15)
            asked = trio.current_time()
            stopped = await link.program.terminate()
        released = max(answers) - asked
    what = f"{_NODES:,} nodes parked"
    return [
        Figure(f"{what}: memory each", memory, KILOBYTES, at_most(45, KILOBYTES)),
        Figure(f"{what}: processor time while idle", idle, PERCENT, at_most(1, PERCENT)),
        Figure(f"{what}: SIGTERM to the last answer", released, SECONDS),
        Figure(f"{what}: SIGTERM to exit", stopped, SECONDS),
    ]


@asynccontextmanager
async def parked_nodes(
    link: SuperLink, number: int, ping_interval: float = 3600.0
) -> AsyncIterator[list[float]]:
    """Park nodes at a SuperLink that the block stops; give when each was answered.

    `ping_interval`: seconds after which a node would be offline that does not wait any more.
    Raises NotMeasured when not all calls were held, and then answered, OK and empty.
    """
    fleet, answers = Client(over_grpc(link.fleet, "Fleet")), list[float]()
    async with trio.open_nursery() as nursery:
        for _ in range(number):
            node = await in_thread(fleet.create_node, ping_interval)
            await nursery.start(_pull, link.fleet, node, answers)
        await link.program.quiet()
        expect(number - len(answers), number, "calls were held")
        yield answers
    expect(len(answers), number, "held calls were answered")


async def _pull(
    address: str, node: pb.Node, answers: list[float], *, task_status: trio.TaskStatus[None]
) -> None:
    """Pull for one node over a connection of its own; its call is under way when this starts.

    gRPC's own clients would need more memory and time for this than the server, and h2 reads no
    further where the server says that it is going away.
    """
    host, _, port = address.rpartition(":")
    request = pb.PullTaskInsRequest(node=node).SerializeToString()
    pull = grpc_call(1, grpc_fields("PullTaskIns"), request)
    unread, body = bytearray(), b""
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(serialized([PREFACE, SettingsFrame(settings=_PLAIN), *pull]))
        async for data in stream:
            unread += data
            for frame in take_frames(unread):
                if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                    await stream.send_all(SettingsFrame(flags=["ACK"]).serialize())
                    task_status.started()
                elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                    pong = PingFrame(opaque_data=frame.opaque_data, flags=["ACK"])
                    await stream.send_all(pong.serialize())
                elif isinstance(frame, DataFrame):
                    body += frame.data
                elif isinstance(frame, HeadersFrame) and "END_STREAM" in frame.flags:
                    if _STATUS_OK in frame.data and body == grpc_message(b""):
                        answers.append(trio.current_time())
                    return


def raise_file_limit(connections: int) -> None:
    """Let this process and those it starts from here on open as many files as they will need.

    Raises NotMeasured where the system does not allow that.
    """
    needed = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise NotMeasured(f"a process may open {hard} files here, and needs {needed}")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
