from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import grpc
import grpc.aio
import pytest
import trio

from superlink_trio.config.address import Address
from superlink_trio.rpc import Api, Caller, Holds, Leased, Refused, Streaming, Unary
from superlink_trio.transport.grpc.credentials import MakeCredentials
from superlink_trio.transport.grpc.handshakes import Handshakes
from superlink_trio.transport.grpc.loop import TrioEventLoop, open_loop
from superlink_trio.transport.grpc.server import GrpcOptions, serve_grpc

LOCALHOST = Address("127.0.0.1", 0)


@attrs.define
class Server:
    """A server under test, and a client to call it with."""

    loop: TrioEventLoop
    address: Address
    holds: Holds
    stopping: trio.Event
    ended: trio.Event
    scope: trio.CancelScope
    turned_away: list[str]

    async def call(
        self, method: str, request: bytes = b"", *, metadata: Any = None, timeout: float = 10
    ) -> bytes:
        """Call over a connection of its own. Raises grpc.aio.AioRpcError."""

        async def call() -> bytes:
            limits = [
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.use_local_subchannel_pool", 1),
            ]
            async with grpc.aio.insecure_channel(str(self.address), limits) as channel:
                multicallable = channel.unary_unary(f"/test.Service/{method}", None, None)
                answer: bytes = await multicallable(request, metadata=metadata, timeout=timeout)
                return answer

        return await self.loop.run_aio_coroutine(call())

    async def status(
        self, method: str, request: bytes = b"", *, timeout: float = 10
    ) -> tuple[grpc.StatusCode, str]:
        """Call, and return the status and its text."""
        try:
            await self.call(method, request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""


Serving = Callable[..., AbstractAsyncContextManager[Server]]


@pytest.fixture
def serving() -> Serving:
    """Open a server with the given handlers; on leaving the block it is stopped and awaited."""

    @asynccontextmanager
    async def serving(
        *,
        unary: Mapping[str, Unary] | None = None,
        leased: Mapping[str, Leased] | None = None,
        streaming: Mapping[str, Streaming] | None = None,
        address: Address = LOCALHOST,
        options: GrpcOptions | None = None,
        credentials: MakeCredentials | None = None,
        handshakes: Handshakes | None = None,
        loop: TrioEventLoop | None = None,
    ) -> AsyncIterator[Server]:
        if loop is None:
            async with (
                open_loop() as loop,
                serving(
                    unary=unary,
                    leased=leased,
                    streaming=streaming,
                    address=address,
                    options=options,
                    credentials=credentials,
                    handshakes=handshakes,
                    loop=loop,
                ) as server,
            ):
                yield server
            return
        holds = Holds()
        refused: list[str] = []

        def turned_away(method: str, caller: Caller, refusal: Refused) -> None:
            refused.append(f"{method}: {refusal.reason}")

        api = Api(
            service="test.Service",
            unary=unary or {},
            leased=leased or {},
            streaming=streaming or {},
            holds=holds,
            turned_away=turned_away,
        )
        stopping, ended, scope = trio.Event(), trio.Event(), trio.CancelScope()

        async def serve(task_status: trio.TaskStatus[Address]) -> None:
            try:
                with scope:
                    await serve_grpc(
                        [api],
                        address,
                        loop=loop,
                        options=options or GrpcOptions(grace=5),
                        credentials=credentials,
                        handshakes=handshakes,
                        stopping=stopping,
                        task_status=task_status,
                    )
            finally:
                ended.set()

        async with trio.open_nursery() as nursery:
            bound = await nursery.start(serve)
            with trio.fail_after(60):
                try:
                    yield Server(loop, bound, holds, stopping, ended, scope, refused)
                finally:
                    stopping.set()
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + 15):
                        await ended.wait()

    return serving


Client = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def client() -> Iterator[Client]:
    """Start `client.py`; whatever is left of it is killed in the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(server: Server, method: str, *deadline: str) -> subprocess.Popen[bytes]:
        script = Path(__file__).parent / "client.py"
        arguments = [str(server.address), f"/test.Service/{method}", *deadline]
        process = subprocess.Popen(
            [sys.executable, str(script), *arguments], stdout=subprocess.PIPE
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def finish() -> Callable[[subprocess.Popen[bytes]], Any]:
    """Wait for a client and return what it wrote."""

    async def finish(process: subprocess.Popen[bytes]) -> str:
        output, _ = await trio.to_thread.run_sync(partial(process.communicate, timeout=30))
        return output.decode()

    return finish


SendCall = Callable[..., None]


@pytest.fixture
def send_call() -> SendCall:
    """Call over hand-made HTTP/2, and over TLS if there is a context; wait for the status."""
    return _send_call


def _send_call(address: Address, path: bytes, tls: ssl.SSLContext | None = None) -> None:

    def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        length = struct.pack(">I", len(payload))[1:]
        return length + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    headers = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"test",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }
    block = b"".join(
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in headers.items()
    )
    with ExitStack() as stack:
        connection = stack.enter_context(
            socket.create_connection((address.host, address.port), timeout=10)
        )
        if tls is not None:
            connection = stack.enter_context(
                tls.wrap_socket(connection, server_hostname="localhost")
            )
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        connection.sendall(frame(1, 4, 1, block) + frame(0, 1, 1, b"\0\0\0\0\0"))
        received = b""
        while b"grpc-status" not in received:
            received += (data := connection.recv(65536))
            assert data, "the server hung up"


@pytest.fixture
def free_port() -> Iterator[int]:
    """Give a port that nobody else is given while the test runs."""
    with socket.socket() as holder:
        # Linux: whoever asks for it by its number, with this option as grpc does, gets it all the
        # same, since nobody listens there.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
