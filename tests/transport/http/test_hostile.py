"""Clients that mean harm. Each time a normal client beside them is served as ever."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transport.http.clients import FLEET, PROTOBUF, head
from trio.testing import wait_all_tasks_blocked

from superlink_trio.transport.http import HttpOptions

PING, PULL = FLEET + "ping", FLEET + "pull-task-ins"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


@pytest.fixture(autouse=True)
def nothing_failed(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def memory() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def serves(server: Any) -> bool:
    with trio.fail_after(5):
        return bool((await server.post("ping", b"x")).body == b"Ping:x")


async def test_a_websocket_upgrade_with_a_byte_too_many(serving: Any) -> None:
    upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
    async with serving() as server:
        client = await server.http1()
        await client.send(head("GET", PING, None, [*upgrade, ("sec-websocket-key", "x")]) + b"x")
        assert (await client.answer("GET")).status == 405
        assert await serves(server)


async def test_an_upgrade_to_http2_is_answered_in_http1(serving: Any) -> None:
    upgrade = [("connection", "upgrade, http2-settings"), ("upgrade", "h2c")]
    upgrade += [("http2-settings", "AAMAAABkAAQAAP__"), *PROTOBUF]
    async with serving() as server:
        client = await server.http1()
        await client.send(head("POST", PING, 0, upgrade) * 2)
        for _ in range(2):
            assert (await client.answer()).status == 200
        await client.send(head("GET", "/\xe9", None, upgrade))
        assert (await client.answer("GET")).status in (400, 404)
        assert await serves(server)


async def test_http2_with_prior_knowledge_is_refused(serving: Any) -> None:
    async with serving() as server:
        client = await server.http1()
        await client.send(PREFACE + SETTINGS)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (505, "close")
        assert await client.ended() == b""
        assert await serves(server)


@pytest.mark.parametrize(
    "request_",
    [
        "PÖST / HTTP/1.1\r\nhost: x\r\n\r\n".encode(),
        b"CONNECT HTTP/1.1\r\n\r\n",
        b"POST /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x00" * 100,
    ],
)
async def test_bytes_that_are_no_request(serving: Any, request_: bytes) -> None:
    async with serving(options=HttpOptions(request_timeout=0.5)) as server:
        client = await server.http1()
        await client.send(request_ + b"\r\n\r\n")
        answer = await client.answer()
        assert answer.status == 400
        assert answer.headers["connection"] == "close"
        assert await client.ended() == b""
        assert await serves(server)


async def test_a_body_that_nobody_reads(serving: Any) -> None:
    """A refused request takes no memory, and does not keep the others from being served."""
    async with serving(options=HttpOptions(max_message_size=10_000)) as server:
        before = memory()
        for _ in range(50):
            client = await server.http1()
            await client.send(head("POST", PING, 11_000) + bytes(11_000))
            assert (await client.answer()).status == 413
        assert memory() - before < 20_000_000
        assert await serves(server)


async def test_bodies_in_pieces_of_one_byte(serving: Any) -> None:
    """Each piece would cost many times what it brings."""
    chunked = [*PROTOBUF, ("transfer-encoding", "chunked")]
    async with serving() as server:
        client = await server.http1()
        before = memory()
        await client.send(head("POST", PING, None, chunked))
        for _ in range(20):
            await client.send(b"1\r\nx\r\n" * 5000)
        await client.send(b"0\r\n\r\n")
        assert (await client.answer()).body == b"Ping:" + b"x" * 100_000
        assert memory() - before < 10_000_000


async def test_many_connections_with_a_request_and_more(serving: Any, lease: Any) -> None:
    """What follows a request waits with the client, but for what was read with it."""
    async with serving(pull=lease.pull, options=HttpOptions(grace=0)) as server:
        more = head("POST", PULL) + bytes(1_000_000)
        before = memory()
        clients = [await server.http1() for _ in range(50)]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.send, more)
            with trio.move_on_after(0.5):
                await wait_all_tasks_blocked(0.2)
            nursery.cancel_scope.cancel()
        assert memory() - before < 20_000_000
        assert await serves(server)


async def test_many_requests_at_once_on_one_connection(serving: Any) -> None:
    async with serving() as server:
        client = await server.http1()
        await client.send(head("POST", PING) * 500)
        for _ in range(500):
            assert (await client.answer()).status == 200


FRAMES = st.builds(
    lambda kind, flags, stream, payload: (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    ),
    st.integers(0, 12),
    st.integers(0, 255),
    st.integers(0, 9) | st.integers(0, 2**32 - 1),
    st.binary(max_size=40) | st.just(b"\x83\x86\x84\x41\x01x"),
)
RUBBISH = (
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from(
            [head("POST", PING, 3), b"abc", b"\r\n", b"0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"]
        )
        | st.binary(max_size=20)
    ).map(b"".join)
    | st.lists(FRAMES).map(lambda frames: PREFACE + b"".join(frames))
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(parts=st.lists(RUBBISH, max_size=3))
def test_rubbish(serving: Any, parts: list[bytes]) -> None:
    async def run() -> None:
        async with serving(options=HttpOptions(grace=0)) as server:
            client = await server.http1()
            for part in parts:
                try:
                    await client.send(part)
                except trio.BrokenResourceError:
                    break
                await trio.lowlevel.checkpoint()
            assert await serves(server)

    trio.run(run)
