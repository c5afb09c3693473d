"""Did the client get it? What a pull holds is kept only if its answer left."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from transport.http.clients import FLEET, PROTOBUF, Http1, head
from trio.testing import MockClock

from superlink_trio.rpc import Caller
from superlink_trio.transport.http import HttpOptions

PULL = FLEET + "pull-task-ins"


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
async def test_an_answer_that_left_is_confirmed(serving: Any, lease: Any, size: int) -> None:
    lease.answer = b"x" * size
    lease.proceed.set()
    async with serving(pull=lease.pull) as server:
        client = await server.http1()
        answer = await client.post(PULL)
        assert (answer.status, len(answer.body)) == (200, size)
        await lease.settled.wait()
    assert lease.outcome == "confirmed"


@pytest.mark.parametrize("end", ["close", "reset", "half-close"])
async def test_a_client_that_goes_away_ends_its_hold(serving: Any, lease: Any, end: str) -> None:
    async with serving(pull=lease.pull) as server:
        stream = await server.connect()
        await stream.send_all(head("POST", PULL))
        await lease.taken.wait()
        if end == "half-close":
            await stream.send_eof()
        else:
            if end == "reset":
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
        with trio.fail_after(5):
            await lease.settled.wait()
        assert lease.outcome == "put back"
        assert (await server.post("ping")).status == 200


async def test_an_answer_that_breaks_off_is_put_back(serving: Any, large_lease: Any) -> None:
    async with serving(pull=large_lease.pull) as server:
        client = await server.http1()
        await client.send(head("POST", PULL))
        assert await client.stream.receive_some(1000)
        await client.stream.aclose()
        with trio.fail_after(5):
            await large_lease.settled.wait()
        assert large_lease.outcome == "put back"


async def test_a_client_that_stops_reading_is_given_up(
    serving: Any, large_lease: Any, clock: MockClock
) -> None:
    async with serving(pull=large_lease.pull, options=HttpOptions(write_timeout=30)) as server:
        client = await server.http1()
        await client.send(head("POST", PULL))
        before = trio.current_time()
        await large_lease.settled.wait()
        assert 30 <= trio.current_time() - before < 61
        assert large_lease.outcome == "put back"


async def test_a_slow_reader_gets_all_of_it(serving: Any, lease: Any, clock: MockClock) -> None:
    lease.answer = bytes(2_000_000)
    lease.proceed.set()
    async with serving(pull=lease.pull, options=HttpOptions(write_timeout=30)) as server:
        stream = await server.connect()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)

        class Slow(trio.abc.Stream):
            async def send_all(self, data: bytes | bytearray | memoryview) -> None:
                await stream.send_all(data)

            async def wait_send_all_might_not_block(self) -> None:
                await stream.wait_send_all_might_not_block()

            async def receive_some(self, max_bytes: int | None = None) -> bytes:
                await trio.sleep(20)
                return bytes(await stream.receive_some(2_000_000))

            async def aclose(self) -> None:
                await stream.aclose()

        before = trio.current_time()
        answer = await Http1(Slow()).post(PULL)
        assert len(answer.body) == 2_000_000
        assert trio.current_time() - before > 60
        await lease.settled.wait()
    assert lease.outcome == "confirmed"


async def test_what_follows_on_the_connection_waits_until_the_lease_is_settled(
    serving: Any, lease: Any
) -> None:
    async with serving(pull=lease.pull) as server:
        client = await server.http1()
        await client.send(head("POST", PULL) + head("POST", FLEET + "ping", headers=PROTOBUF))
        await lease.taken.wait()
        lease.proceed.set()
        assert (await client.answer()).body == b"task"
        assert (await client.answer()).body == b"Ping:"
        assert lease.outcome == "confirmed"


async def test_what_fails_after_an_answer_is_logged_and_no_second_answer(
    serving: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def pull(request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        yield b"task"
        raise ValueError("too late")

    async with serving(pull=pull) as server:
        client = await server.http1()
        for _ in range(2):
            assert (await client.post(PULL)).body == b"task"
    assert [record.getMessage() for record in caplog.records] == ["PullTaskIns failed"] * 2
