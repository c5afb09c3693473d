"""What is over a limit is refused, and nobody else notices."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import grpc
import grpc.aio
import h2.config
import h2.connection
import pytest
import trio

from superlink_trio.rpc import Caller, Duplex
from superlink_trio.transport.grpc.server import GrpcOptions

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


async def echo(request: bytes, caller: Caller) -> bytes:
    return request


@attrs.define
class Slow:
    """Calls that are not held, and last until the test ends."""

    begun: int = 0

    async def unary(self, request: bytes, caller: Caller) -> bytes:
        self.begun += 1
        await trio.sleep_forever()
        return b""


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110 (what happens in a server has no event)
        await trio.sleep(0.01)


async def becomes(server: Any, code: grpc.StatusCode) -> None:
    """Call until the status is this one."""
    with trio.fail_after(5):
        while (await server.status("Echo"))[0] is not code:
            pass


@asynccontextmanager
async def halting(server: Any, calls: int) -> AsyncIterator[trio.SocketStream]:
    """Keep calls open whose requests never come to an end."""
    async with await trio.open_tcp_stream(server.address.host, server.address.port) as stream:
        client = h2.connection.H2Connection(h2.config.H2Configuration())
        client.initiate_connection()
        for _ in range(calls):
            number = client.get_next_available_stream_id()
            fields = [(":method", "POST"), (":scheme", "http"), (":authority", "x")]
            fields += [(":path", "/test.Service/Echo"), ("te", "trailers")]
            client.send_headers(number, [*fields, ("content-type", "application/grpc")])
            client.send_data(number, struct.pack(">?I", False, 1000) + b"the beginning")
        await stream.send_all(client.data_to_send())
        yield stream


@pytest.mark.parametrize("method", ["Echo", "Held"])
async def test_held_calls_make_room_for_others(serving: Any, method: str) -> None:
    answered: list[bytes] = []

    @asynccontextmanager
    async def hold(request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        with server.holds.open(1000):
            await trio.sleep_forever()
        yield b"empty"

    options = GrpcOptions(grace=5, max_calls=3)
    async with serving(unary={"Echo": echo}, leased={"Held": hold}, options=options) as server:

        async def held() -> None:
            answered.append(await server.call("Held", timeout=30))

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(held)
                await until(lambda wanted=number + 1: len(server.holds) == wanted)
            if method == "Echo":
                assert await server.call("Echo", b"x") == b"x"
            else:
                nursery.start_soon(held)
            await until(lambda: answered)
            assert answered == [b"empty"]
            assert len(server.holds) == (2 if method == "Echo" else 3)
            server.holds.release()


async def test_a_call_too_many_is_refused_at_once_and_a_ping_last(serving: Any) -> None:
    slow = Slow()
    handlers = {"Slow": slow.unary, "Ping": echo, "Echo": echo}
    async with serving(unary=handlers, options=GrpcOptions(grace=0, max_calls=3)) as server:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(server.status, "Slow")
            await until(lambda: slow.begun == 3)
            code, details = await server.status("Slow")
            assert code is EXHAUSTED
            assert "3 calls are under way" in details
            assert server.turned_away == ["Slow: max_calls"]
            assert await server.call("Ping", b"x") == b"x"
            assert slow.begun == 3
            nursery.cancel_scope.cancel()
        await trio.sleep(0.1)
        assert await server.call("Echo", b"x") == b"x"


async def test_conversations_count_as_calls(serving: Any) -> None:
    entered, left = 0, trio.Event()

    async def talk(stream: Duplex, caller: Caller) -> None:
        nonlocal entered
        entered += 1
        await left.wait()

    async def open_call(server: Any) -> Any:
        channel = grpc.aio.insecure_channel(str(server.address))
        talk: Any = channel.stream_stream("/test.Service/Talk", None, None)
        return talk()

    options = GrpcOptions(max_calls=2)
    async with serving(unary={"Echo": echo}, streaming={"Talk": talk}, options=options) as server:
        calls = [await server.loop.run_aio_coroutine(open_call(server)) for _ in range(2)]
        await until(lambda: entered == 2)
        calls.append(await server.loop.run_aio_coroutine(open_call(server)))
        assert await server.loop.run_aio_coroutine(calls[-1].code()) is EXHAUSTED
        assert server.turned_away == ["Talk: max_calls"]
        assert (await server.status("Echo"))[0] is EXHAUSTED
        left.set()
        for call in calls[:2]:
            assert await server.loop.run_aio_coroutine(call.code()) is grpc.StatusCode.OK
        await becomes(server, grpc.StatusCode.OK)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_compressed_request_is_refused(serving: Any, compression: grpc.Compression) -> None:
    arrived: list[bytes] = []

    async def note(request: bytes, caller: Caller) -> bytes:
        arrived.append(request)
        return b""

    async def call(server: Any) -> Any:
        async with grpc.aio.insecure_channel(str(server.address)) as channel:
            echo: Any = channel.unary_unary("/test.Service/Echo", None, None)
            return await echo(bytes(1_000_000), compression=compression)

    async with serving(unary={"Echo": note}) as server:
        with pytest.raises(grpc.aio.AioRpcError, match="is disabled") as caught:
            await server.loop.run_aio_coroutine(call(server))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert not arrived
        assert await server.call("Echo", b"plain") == b""


async def test_requests_that_do_not_come_make_room_for_others(serving: Any) -> None:
    # Long enough to be refused first, even where the machine is busy.
    options = GrpcOptions(max_calls=5, request_timeout=2)
    async with serving(unary={"Echo": echo}, options=options) as server:
        async with halting(server, 5) as stream:
            await becomes(server, EXHAUSTED)
            newcomers = len(server.turned_away)
            await becomes(server, grpc.StatusCode.OK)
            for _ in range(4):
                assert await server.call("Echo", b"x") == b"x"
            told = b""
            with trio.fail_after(5):
                while b"all that --max-calls allows" not in told:
                    told += await stream.receive_some()
            assert len(server.turned_away) > newcomers, "who gave way was refused as well"
        await becomes(server, grpc.StatusCode.OK)


async def test_a_call_that_ends_without_a_request_is_refused(serving: Any) -> None:
    async def call(server: Any) -> Any:
        async with grpc.aio.insecure_channel(str(server.address)) as channel:
            nothing: Any = channel.stream_unary("/test.Service/Echo", None, None)
            return await nothing(iter(()))

    async with serving(unary={"Echo": echo}) as server:
        with pytest.raises(grpc.aio.AioRpcError, match="ended without a request") as caught:
            await server.loop.run_aio_coroutine(call(server))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert server.turned_away == ["Echo: invalid_argument"]


async def test_a_message_too_large_is_refused(serving: Any) -> None:
    async with serving(unary={"Echo": echo}, options=GrpcOptions(max_message_size=1000)) as server:
        assert await server.call("Echo", bytes(1000)) == bytes(1000)
        code, details = await server.status("Echo", bytes(1001))
        assert code is EXHAUSTED
        assert "1001 vs. 1000" in details


async def test_headers_too_large_are_refused(serving: Any) -> None:
    async with serving(unary={"Echo": echo}, options=GrpcOptions(max_header_size=2000)) as server:
        assert await server.call("Echo", b"x", metadata=(("key", "v" * 1000),)) == b"x"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.call("Echo", b"x", metadata=(("key", "v" * 2000),))
        assert caught.value.code() is EXHAUSTED
        assert await server.call("Echo", b"x") == b"x"


@pytest.mark.parametrize(
    "first", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], ids=["silent", "half"]
)
async def test_a_connection_that_does_not_begin_is_closed(serving: Any, first: bytes) -> None:
    options = GrpcOptions(request_timeout=0.5)
    async with serving(unary={"Echo": echo}, options=options) as server:
        where = (server.address.host, server.address.port)
        async with await trio.open_tcp_stream(*where) as stream:
            await stream.send_all(first)
            with trio.fail_after(10):
                while await stream.receive_some():
                    pass
        assert await server.call("Echo", b"x") == b"x"


async def test_a_connection_without_calls_is_closed(serving: Any) -> None:
    async with serving(unary={"Echo": echo}, options=GrpcOptions(max_idle=1.0)) as server:
        where = (server.address.host, server.address.port)
        async with await trio.open_tcp_stream(*where) as stream:
            client = h2.connection.H2Connection(h2.config.H2Configuration())
            client.initiate_connection()
            await stream.send_all(client.data_to_send())
            with trio.fail_after(10):
                while data := await stream.receive_some():
                    client.receive_data(data)
                    await stream.send_all(client.data_to_send())
        assert await server.call("Echo", b"x") == b"x"


async def test_a_connection_too_many_is_refused(serving: Any) -> None:
    async with serving(unary={"Echo": echo}, options=GrpcOptions(max_connections=2)) as server:
        where = (server.address.host, server.address.port)
        async with halting(server, 1), halting(server, 1):
            await trio.sleep(0.1)
            async with await trio.open_tcp_stream(*where) as stream:
                with trio.fail_after(5):
                    assert not await stream.receive_some()
        await becomes(server, grpc.StatusCode.OK)
