"""Many connections at once to a TLS server whose certificate changes all the time.

Usage: tls_storm.py FOLDER CONNECTIONS CHANGES. A process of its own: what goes wrong here ends the
process without an exception. Writes how many calls were answered.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
import trio

# Run as a script: the tests' folder is not on its path by itself.
sys.path.insert(0, str(Path(__file__).parents[2]))

from certificates import Authority

from superlink_trio.config.address import Address
from superlink_trio.credentials.certificates import Certificates
from superlink_trio.rpc import Api, Caller, Holds
from superlink_trio.transport.grpc import (
    GrpcOptions,
    open_loop,
    serve_grpc,
    server_credentials,
)

CLIENTS = 8


async def echo(request: bytes, _: Caller) -> bytes:
    return request


def connect(address: Address, ca: bytes, turns: Iterator[int], answered: list[None]) -> None:
    for _ in turns:
        credentials = grpc.ssl_channel_credentials(ca)
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(str(address), credentials, options) as channel:
            channel.unary_unary("/test.Service/Echo", None, None)(b"x", timeout=20)
        answered.append(None)


async def main(folder: Path, connections: int, changes: int) -> None:
    authority = Authority(folder)
    authority.issue()
    certificates = Certificates(authority.sources)
    api = Api(service="test.Service", unary={"Echo": echo}, leased={}, holds=Holds())
    stopping, answered = trio.Event(), list[None]()
    async with open_loop() as loop, trio.open_nursery() as nursery:
        address = await nursery.start(
            partial(
                serve_grpc,
                [api],
                Address("127.0.0.1", 0),
                loop=loop,
                options=GrpcOptions(grace=1),
                credentials=server_credentials(certificates),
                stopping=stopping,
            )
        )
        turns = iter(range(connections))
        clients = [
            threading.Thread(target=connect, args=(address, authority.pem, turns, answered))
            for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        for change in range(changes):
            while len(answered) < connections * change // changes:  # noqa: ASYNC110 (for threads)
                await trio.sleep(0.01)
            authority.issue()
            certificates.reload()
        for client in clients:
            await trio.to_thread.run_sync(client.join)
        stopping.set()
    sys.stdout.write(str(len(answered)))


trio.run(main, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
