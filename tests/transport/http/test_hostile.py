"""Clients that mean harm. Each time a normal client beside them is served as ever."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import pytest
import trio
import trio.lowlevel
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transport.http.clients import FLEET, PROTOBUF, Http2, head
from transport.http.conftest import Lease
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.rpc import Caller
from superlink_trio.transport.http import HttpOptions

PING, PULL = FLEET + "ping", FLEET + "pull-task-ins"


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


async def test_an_upgrade_to_http2(serving: Any) -> None:
    upgrade = [("connection", "upgrade, http2-settings"), ("upgrade", "h2c")]
    async with serving() as server:
        client = await server.http1()
        request = head("GET", "/\xe9", None, [*upgrade, ("http2-settings", "AAMAAABkAAQAAP__")])
        await client.send(request)
        assert (await client.answer("GET")).status in (400, 404)
        assert await serves(server)


async def test_data_after_an_early_answer(serving: Any) -> None:
    async with serving(options=HttpOptions(max_body=100)) as server:
        client = await server.http2()
        stream_id = client.start(PING, end=False, headers=[*PROTOBUF, ("content-length", "200")])
        client.h2.send_data(stream_id, bytes(50))
        await client.flush()
        while not any(isinstance(event, h2.events.StreamEnded) for event in client.events):
            assert await client.read()
        assert (await client.answer(stream_id)).status == 413
        # As if it had been on its way.
        await client.stream.send_all(DataFrame(stream_id, b"late").serialize())
        assert (await client.post(PING, b"x")).body == b"Ping:x"
        assert await serves(server)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/é"), ("PÖST", PING), ("CONNECT", PING), ("CONNECT", None)]
)
async def test_a_first_line_that_is_none(serving: Any, method: str, path: str | None) -> None:
    async with serving() as server:
        client = await server.http2()
        fields = [(":method", method), (":authority", "superlink")]
        if path is not None:
            fields += [(":scheme", "http"), (":path", path)]
        client.h2.send_headers(1, [*fields, *PROTOBUF], end_stream=True)
        await client.flush()
        with pytest.raises(EOFError):
            await client.answer(1)
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
    async with serving(options=HttpOptions(head_timeout=0.5)) as server:
        client = await server.http1()
        await client.send(request_ + b"\r\n\r\n")
        answer = await client.answer()
        assert answer.status == 400
        assert answer.problem["detail"] == "these bytes are no HTTP/1.1 request"
        assert answer.headers["connection"] == "close"
        assert await client.ended() == b""
        assert await serves(server)


async def test_rapid_reset(serving: Any, lease: Any) -> None:
    async with serving(pull=lease.pull) as server:
        before = memory()
        for _ in range(3):
            client = await server.http2()
            with pytest.raises((trio.BrokenResourceError, h2.exceptions.ProtocolError)):
                await reset_rapidly(client)
            assert await serves(server)
        assert memory() - before < 20_000_000
    assert lease.pulls <= 3 * 1100


async def reset_rapidly(client: Http2) -> None:
    for _ in range(100):
        for _ in range(100):
            client.h2.reset_stream(client.start(PULL))
        await client.flush()
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    "frame",
    [PingFrame(0, b"pingping"), SettingsFrame(0, {1: 4096, 4: 65535})],
    ids=["ping", "settings"],
)
async def test_a_flood_of_frames(serving: Any, frame: Frame) -> None:
    async with serving() as server:
        before = memory()
        client = await server.http2()
        # Fewer are nobody's business.
        await client.stream.send_all(frame.serialize() * 500)
        assert (await client.post(PING, b"x")).status == 200
        with pytest.raises(trio.BrokenResourceError):
            await send_without_end(client.stream, frame.serialize() * 1000)
        assert memory() - before < 20_000_000
        assert await serves(server)


async def send_without_end(stream: trio.abc.Stream, data: bytes) -> None:
    for _ in range(1000):
        await stream.send_all(data)


async def test_a_flood_from_a_client_that_does_not_read(serving: Any, clock: MockClock) -> None:
    async with serving(options=HttpOptions(write_timeout=30)) as server:
        client = await server.http2()
        with pytest.raises(trio.BrokenResourceError):
            await send_without_end(client.stream, PingFrame(0, b"pingping").serialize() * 1000)
        assert await serves(server)


async def test_endless_headers(serving: Any) -> None:
    async with serving() as server:
        before = memory()
        client = await server.http2()
        encoded = client.h2.encoder.encode([(":method", "POST"), ("x", "y" * 10_000)])
        await client.stream.send_all(HeadersFrame(1, encoded).serialize())
        with pytest.raises(trio.BrokenResourceError):
            await send_without_end(client.stream, ContinuationFrame(1, encoded).serialize())
        assert memory() - before < 20_000_000
        assert await serves(server)


async def test_a_window_of_zero_and_large_answers(serving: Any, large_lease: Any) -> None:
    async with serving(pull=large_lease.pull, options=HttpOptions(grace=0.1)) as server:
        client = Http2(await server.connect())
        client.h2.initiate_connection()
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        await client.flush()
        await client.read()
        before = memory()
        for _ in range(100):
            client.start(PULL)
        await client.flush()
        while sum(isinstance(event, h2.events.ResponseReceived) for event in client.events) < 30:
            assert await client.read()
        await wait_all_tasks_blocked(0.05)
        # Each answer has 64 MB.
        assert memory() - before < 50_000_000
        assert await serves(server)


async def test_a_client_that_makes_little_room_has_its_answer_at_last(
    serving: Any, clock: MockClock
) -> None:
    lease = Lease(b"x" * 1_000_000)
    lease.proceed.set()
    async with serving(pull=lease.pull, options=HttpOptions(write_timeout=30)) as server:
        client = Http2(await server.connect())
        client.h2.initiate_connection()
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        stream_id = client.start(PULL)
        await client.flush()
        body = b""
        while len(body) < len(lease.answer):
            await trio.sleep(20)
            client.h2.increment_flow_control_window(65_536)
            client.h2.increment_flow_control_window(65_536, stream_id)
            await client.flush()
            wanted = min(len(body) + 65_536, len(lease.answer))
            while len(body) < wanted:
                data = await client.stream.receive_some(65_536)
                assert data
                for event in client.h2.receive_data(data):
                    if isinstance(event, h2.events.DataReceived):
                        body += event.data
        assert body == lease.answer
        await lease.settled.wait()
        assert lease.outcome == "confirmed"


async def test_a_body_that_nobody_reads(serving: Any) -> None:
    """A refused stream takes no memory, and does not keep the others from being served."""
    async with serving(options=HttpOptions(max_body=10_000)) as server:
        client = await server.http2()
        before = memory()
        for _ in range(50):
            stream_id = client.start(PING, end=False)
            client.h2.send_data(stream_id, bytes(11_000))
            await client.flush()
            assert (await client.answer(stream_id)).status == 413
        assert (await client.post(PING, b"x")).body == b"Ping:x"
        assert memory() - before < 20_000_000


async def test_many_requests_at_once_on_one_connection(serving: Any) -> None:
    async with serving() as server:
        client = await server.http1()
        await client.send(head("POST", PING) * 500)
        for _ in range(500):
            assert (await client.answer()).status == 200


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
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


async def test_one_slow_call_holds_nobody_up(serving: Any) -> None:
    blocked = trio.Event()

    @asynccontextmanager
    async def pull(request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        await blocked.wait()
        yield b""

    async with serving(pull=pull) as server:
        client = await server.http2()
        streams = [client.start(PULL) for _ in range(99)]
        await client.flush()
        assert (await client.post(PING, b"x")).body == b"Ping:x"
        blocked.set()
        for stream_id in streams:
            assert (await client.answer(stream_id)).status == 200
