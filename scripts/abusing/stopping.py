"""SIGTERM under busy REST clients: how long stopping takes, and which calls are lost.

Each client keeps one connection busy with calls that create nodes. A call is lost when its
request was sent, its connection ended without an answer, and yet the SuperLink had done it.
"""

from __future__ import annotations

import threading
from functools import partial
from http.client import HTTPConnection

import attrs
import trio
from peering.client import REST, NotAnswered, post
from peering.processes import CHECKOUT, launching, start_superlink

from superlink_trio.wire import superlink_pb2 as pb

_REQUEST = pb.CreateNodeRequest(ping_interval=30).SerializeToString()


@attrs.frozen
class Stop:
    """What came of one."""

    seconds: float
    answered: int
    lost: int
    status: int

    def __str__(self) -> str:
        return (
            f"{self.seconds:.2f} s, {self.answered} answered, {self.lost} lost, "
            f"exit status {self.status}"
        )


async def stop_once(*, clients: int, grace: float, load: float) -> Stop:
    """Stop a SuperLink after so many seconds of load."""
    answered: list[int] = []
    busy = threading.Barrier(clients + 1)
    to_thread = partial(trio.to_thread.run_sync, limiter=trio.CapacityLimiter(clients + 1))

    async def keep_busy(number: int) -> None:
        answered.append(await to_thread(_create_nodes, link.fleet, number, busy))

    async with launching() as start, trio.open_nursery() as nursery:
        options = ("--grace", str(grace))
        link = await start_superlink(start, *options, transport="rest", PYTHONPATH=CHECKOUT)
        for number in range(clients):
            nursery.start_soon(keep_busy, number)
        await to_thread(busy.wait)
        await trio.sleep(load)
        seconds = await link.program.terminate()
        status = await link.program.end()
    joined = sum("joined from" in line for line in link.program.lines)
    return Stop(seconds, sum(answered), joined - sum(answered), status)


def _create_nodes(address: str, number: int, busy: threading.Barrier) -> int:
    """Send one request after the other until the connection is closed; count the answers."""
    # The log tells of 1000 new nodes a minute and host.
    host = f"127.0.{number // 250}.{number % 250 + 1}"
    connection = HTTPConnection(address, source_address=(host, 0))
    connection.connect()
    connection.auto_open = 0
    busy.wait()
    answered = 0
    while True:
        try:
            post(connection, REST, "CreateNode", _REQUEST)
        except NotAnswered as error:
            if not error.code.isdigit():  # a status refuses one call, the connection goes on
                connection.close()
                return answered
        else:
            answered += 1
