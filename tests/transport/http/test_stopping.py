"""A server that is asked to stop, whatever its clients are doing."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from transport.http.clients import FLEET, Http1, connect, connect_tls, head
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.rpc import Caller
from superlink_trio.transport.http import HttpOptions

GRACE = HttpOptions(grace=2)
PING, PULL = FLEET + "ping", FLEET + "pull-task-ins"


class Held:
    """A pull that is held as the Fleet API does it."""

    def __init__(self) -> None:
        self.holds: Any = None
        self.held = 0

    @asynccontextmanager
    async def pull(self, request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        with self.holds.open(1000):
            self.held += 1
            await trio.sleep_forever()
        yield b""


async def test_an_idle_server_stops_at_once(serving: Any, clock: MockClock) -> None:
    async with serving(options=GRACE) as server:
        await server.post("ping")
        assert await server.stop() == 0
        with pytest.raises(OSError):
            await connect(server.address)


async def test_idle_connections_do_not_keep_it(serving: Any, clock: MockClock) -> None:
    async with serving(options=GRACE) as server:
        await (await server.http1()).post(PING)
        silent = await server.http1()
        assert await server.stop() < 0.2
        assert await silent.ended() == b""


async def test_connections_that_come_in_the_last_moment_do_not_keep_it(
    serving: Any, clock: MockClock
) -> None:
    for patience in range(12):
        async with serving(options=GRACE) as server:
            with socket.create_connection((server.address.host, server.address.port)):
                for _ in range(patience):
                    await trio.lowlevel.checkpoint()
                assert await server.stop() < 0.3


async def test_held_calls_are_answered_empty(serving: Any, clock: MockClock) -> None:
    held = Held()
    async with serving(pull=held.pull, options=GRACE) as server:
        held.holds = server.holds
        answers = []

        async def pull(client: Http1) -> None:
            answers.append(await client.post(PULL))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(pull, await server.http1())
            await wait_all_tasks_blocked(0.05)
            assert held.held == 20
            assert await server.stop() < 0.3
        assert [(answer.status, answer.body) for answer in answers] == [(200, b"")] * 20


async def test_a_call_in_flight_finishes(serving: Any, clock: MockClock) -> None:
    started = trio.Event()

    async def work(request: bytes, caller: Caller) -> bytes:
        started.set()
        await trio.sleep(1.5)
        return b"done"

    async def push(server: Any) -> None:
        answer = await server.post("push-task-res")
        assert (answer.status, answer.body) == (200, b"done")
        assert answer.headers["connection"] == "close"

    async with (
        serving(unary={"PushTaskRes": work}, options=GRACE) as server,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(push, server)
        await started.wait()
        assert 1.4 < await server.stop() < 1.7


async def test_a_call_that_does_not_end_is_cancelled_without_an_answer(
    serving: Any, clock: MockClock, lease: Any
) -> None:
    async with serving(pull=lease.pull, options=GRACE) as server:
        client = await server.http1()
        await client.send(head("POST", PULL))
        await lease.taken.wait()
        assert 2 <= await server.stop() < 2.3
        assert await client.ended() == b"", "an answer would be final to Flower's clients"
        assert lease.outcome in ("", "put back")
        assert lease.settled.is_set()


async def test_requests_that_still_come_are_answered_but_for_pulls(
    serving: Any, clock: MockClock, lease: Any
) -> None:
    async with serving(pull=lease.pull, options=GRACE) as server:
        clients = {
            call: await server.http1() for call in ("ping", "push-task-res", "pull-task-ins")
        }
        for client in clients.values():
            await client.post(PING)
        async with trio.open_nursery() as nursery:
            # Keeps the server until its grace is over.
            await (await server.http1()).send(head("POST", PULL))
            await lease.taken.wait()
            nursery.start_soon(server.stop)
            await trio.sleep(0.5)
            answers = {call: await client.post(FLEET + call) for call, client in clients.items()}
        assert {call: answer.status for call, answer in answers.items()} == {
            "ping": 200,
            "push-task-res": 200,
            "pull-task-ins": 503,
        }
        assert {answer.headers["connection"] for answer in answers.values()} == {"close"}
        assert answers["ping"].headers["content-type"] == "application/protobuf"
        assert lease.pulls == 1


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("client", ["deaf", "half a head", "half a body", "idle"])
async def test_no_client_can_keep_it(
    serving: Any, clock: MockClock, large_lease: Any, client: str, cancelled: bool
) -> None:
    async with serving(pull=large_lease.pull, options=GRACE) as server:
        stream = await server.connect()
        match client:
            case "deaf":
                await stream.send_all(head("POST", PULL))
                await large_lease.taken.wait()
            case "half a head":
                await stream.send_all(head("POST", PULL)[:20])
            case "half a body":
                await stream.send_all(head("POST", PING, 1000) + b"x")
            case "idle":
                await Http1(stream).post(PING)
        await wait_all_tasks_blocked(0.02)
        if cancelled:
            server.scope.cancel()
        assert await server.stop() <= (0.1 if cancelled else 2.3)
        if client == "deaf":
            assert large_lease.outcome == "put back"


@pytest.mark.parametrize("client", ["deaf", "no handshake", "idle"])
async def test_no_client_over_tls_can_keep_it(
    serving: Any,
    clock: MockClock,
    large_lease: Any,
    client: str,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
) -> None:
    options = HttpOptions(grace=2, request_timeout=60)
    async with serving(
        pull=large_lease.pull, tls=lambda: server_context, options=options
    ) as server:
        if client == "no handshake":
            stream = await server.connect()
            await stream.send_all(b"\x16\x03\x01")
        else:
            stream = await connect_tls(server.address, client_context, "http/1.1")
            if client == "deaf":
                await stream.send_all(head("POST", PULL))
                await large_lease.taken.wait()
        await wait_all_tasks_blocked(0.02)
        assert await server.stop() <= 2.3
        await trio.aclose_forcefully(stream)


class Busy:
    """Clients that send one request after the other until their connection is closed."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.answered: list[bytes] = []
        self.many = trio.Event()

    async def run(self, number: int) -> None:
        client = await self.server.http1()
        for count in range(100_000):
            try:
                answer = await client.post(FLEET + "push-task-res", b"%d %d" % (number, count))
            except (EOFError, OSError, trio.BrokenResourceError):
                return
            assert answer.status == 200
            self.answered.append(answer.body)
            if len(self.answered) > 1000:
                self.many.set()
            if answer.headers.get("connection") == "close":
                return


async def test_busy_clients_lose_no_answer(serving: Any) -> None:
    served: list[bytes] = []

    async def serve(request: bytes, caller: Caller) -> bytes:
        served.append(request)
        return request

    async with serving(unary={"PushTaskRes": serve}, options=GRACE) as server:
        busy = Busy(server)
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(busy.run, number)
            await busy.many.wait()
            assert await server.stop() < 2.5
    assert sorted(served) == sorted(busy.answered)


async def test_it_can_be_started_again_on_its_port(serving: Any) -> None:
    address = None
    for _ in range(10):
        async with serving(**({"address": address} if address else {}), options=GRACE) as server:
            address = server.address
            assert (await server.post("ping")).status == 200
            await (await server.http1()).post(PING)
            await server.stop()


async def test_an_interrupt_ends_the_server(serving: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def interrupt(request: bytes, caller: Caller) -> bytes:
        raise KeyboardInterrupt

    async def meet_it() -> None:
        async with serving(unary={"Ping": interrupt}, options=GRACE) as server:
            client = await server.http1()
            await client.send(head("POST", PING))
            await client.ended()

    with pytest.raises(BaseExceptionGroup) as caught:
        await meet_it()
    assert caught.group_contains(KeyboardInterrupt)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
