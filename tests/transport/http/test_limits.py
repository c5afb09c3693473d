"""What is over a limit is refused, and nobody else notices."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from transport.http.clients import FLEET, PROTOBUF, connect, head
from trio.testing import MockClock

from superlink_trio.rpc import Call, Caller, Refused, Status
from superlink_trio.transport.http import HttpOptions

PING = FLEET + "ping"


@asynccontextmanager
async def elapsing(least: float, most: float) -> AsyncIterator[None]:
    before = trio.current_time()
    yield
    assert least <= trio.current_time() - before <= most


async def test_the_largest_body_is_taken(serving: Any, clock: MockClock) -> None:
    async with serving(options=HttpOptions(max_message_size=50_000)) as server:
        client = await server.http1()
        answer = await client.post(PING, bytes(50_000))
        assert len(answer.body) == len(b"Ping:") + 50_000


@pytest.mark.parametrize("length", [1001, 536_870_913, 10**19])
async def test_a_body_that_is_declared_too_large_is_refused_before_it_comes(
    serving: Any, clock: MockClock, length: int
) -> None:
    async with serving(options=HttpOptions(max_message_size=1000)) as server:
        client = await server.http1()
        await client.send(head("POST", PING, length))
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert "larger than 1000 bytes" in answer.problem["detail"]


async def test_a_client_that_sends_all_before_it_reads_is_told_as_well(
    serving: Any, clock: MockClock
) -> None:
    async with serving(options=HttpOptions(max_message_size=1000)) as server:
        client = await server.http1()
        answer = await client.post(PING, bytes(10_000_000))
        assert answer.status == 413


async def test_a_body_is_counted_while_it_comes(serving: Any, clock: MockClock) -> None:
    async with serving(options=HttpOptions(max_message_size=1000)) as server:
        client = await server.http1()
        chunked = [*PROTOBUF, ("transfer-encoding", "chunked")]
        await client.send(head("POST", PING, None, chunked) + b"3e8\r\n" + bytes(1000) + b"\r\n")
        await client.send(b"1\r\nx\r\n")
        assert (await client.answer()).status == 413


async def test_a_chunked_body_is_taken(serving: Any, clock: MockClock) -> None:
    async with serving() as server:
        client = await server.http1()
        chunked = [*PROTOBUF, ("transfer-encoding", "chunked")]
        await client.send(head("POST", PING, None, chunked) + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
        assert (await client.answer()).body == b"Ping:abc"


async def test_a_body_that_does_not_come_is_given_up(serving: Any, clock: MockClock) -> None:
    async with serving(options=HttpOptions(request_timeout=20)) as server:
        client = await server.http1()
        async with elapsing(20, 21):
            await client.send(head("POST", PING, 10) + b"12345")
            assert await client.ended() == b"", (
                "no answer, which would be final to Flower's clients"
            )


async def test_a_slow_body_has_the_time_it_needs(serving: Any, clock: MockClock) -> None:
    async with serving(options=HttpOptions(request_timeout=20, min_body_rate=10)) as server:
        client = await server.http1()
        await client.send(head("POST", PING, 600))
        for _ in range(6):
            await trio.sleep(9)
            await client.send(bytes(100))
        assert (await client.answer()).status == 200


async def test_a_trickled_body_is_given_up(serving: Any, clock: MockClock) -> None:
    async with serving(options=HttpOptions(request_timeout=20, min_body_rate=10)) as server:
        client = await server.http1()
        await client.send(head("POST", PING, 600))
        async with trio.open_nursery() as nursery:

            async def trickle() -> None:
                with suppress(trio.BrokenResourceError):
                    while True:
                        await client.send(b"x")
                        await trio.sleep(1)

            nursery.start_soon(trickle)
            async with elapsing(20, 24):
                assert await client.ended() == b""


async def test_a_head_that_is_too_large_is_refused(serving: Any, clock: MockClock) -> None:
    async with serving(options=HttpOptions(max_header_size=4096)) as server:
        client = await server.http1()
        await client.send(b"POST / HTTP/1.1\r\n" + b"x: " + bytes([97]) * 5000)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (431, "close")


@pytest.mark.parametrize("start", [b"", b"P", b"POST / HTTP/1.1\r\nhost: x\r\n"])
async def test_a_head_that_does_not_come_ends_the_connection(
    serving: Any, clock: MockClock, start: bytes
) -> None:
    async with serving(options=HttpOptions(request_timeout=10)) as server:
        client = await server.http1()
        await client.send(start)
        async with elapsing(9, 11):
            assert await client.ended() == b""


async def test_a_trickled_head_ends_the_connection(serving: Any, clock: MockClock) -> None:
    async with serving(options=HttpOptions(request_timeout=10)) as server:
        client = await server.http1()
        await client.post(PING)
        async with elapsing(10, 13):
            with suppress(trio.BrokenResourceError):
                for byte in head("POST", PING):
                    await client.send(bytes([byte]))
                    await trio.sleep(1)


async def test_a_connection_without_requests_is_closed(serving: Any, clock: MockClock) -> None:
    async with serving(options=HttpOptions(keep_alive=60, request_timeout=10)) as server:
        client = await server.http1()
        await client.post(PING)
        async with elapsing(60, 61):
            await client.ended()


async def test_a_held_call_may_be_held(serving: Any, clock: MockClock, lease: Any) -> None:
    async with serving(pull=lease.pull) as server:
        client = await server.http1()
        async with trio.open_nursery() as nursery:

            async def release() -> None:
                await trio.sleep(1000)
                lease.proceed.set()

            nursery.start_soon(release)
            assert (await client.post(FLEET + "pull-task-ins")).body == b"task"


async def test_a_tls_handshake_that_stalls_ends_the_connection(
    serving: Any, clock: MockClock, server_context: ssl.SSLContext
) -> None:
    options = HttpOptions(request_timeout=10)
    async with serving(tls=lambda: server_context, options=options) as server:
        client = await server.http1()
        async with elapsing(9, 11):
            await client.ended()


@pytest.mark.parametrize(
    "limit", [{"max_connections": 3}, {"max_connections_per_address": 3}], ids=str
)
async def test_a_connection_too_many_is_closed(
    serving: Any, clock: MockClock, limit: dict[str, int]
) -> None:
    async with serving(options=HttpOptions(**limit)) as server:
        clients = [await server.http1() for _ in range(3)]
        for client in clients:
            assert (await client.post(PING)).status == 200
        one_too_many = await server.http1()
        assert await one_too_many.ended() == b""
        assert (await clients[0].post(PING)).status == 200
        await clients[0].stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (await server.post("ping")).status == 200


async def test_a_pull_for_which_there_is_no_room_is_put_back(
    serving: Any, clock: MockClock, large_lease: Any
) -> None:
    reasons: list[str] = []

    @asynccontextmanager
    async def pull(request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        try:
            async with large_lease.pull(request, caller) as answer:
                yield answer
        except Refused as refusal:
            reasons.append(refusal.reason)
            raise

    async with (
        serving(pull=pull, options=HttpOptions(max_answers=100_000_000)) as server,
        await connect(server.address) as stalled,
    ):
        await stalled.send_all(head("POST", FLEET + "pull-task-ins"))
        assert await stalled.receive_some(10)
        answer = await server.post("pull-task-ins")
        assert (answer.status, answer.headers["retry-after"]) == (503, "3")
        assert large_lease.outcome == "put back"
        assert reasons == ["max_answers"]
        assert (await server.post("ping")).status == 200


class Outcomes:
    """Observes how calls end."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    def begun(self, call: Call) -> None:
        pass

    def over(self, call: Call) -> None:
        self.seen.append((call.method, call.outcome, call.reason))


async def test_an_answer_that_there_is_no_room_for_is_seen_as_what_it_is(
    serving: Any, clock: MockClock
) -> None:
    async def large(request: bytes, caller: Caller) -> bytes:
        return bytes(100_000 if request else 1_000)

    observer = Outcomes()
    options = HttpOptions(max_answers=50_000)
    async with serving(unary={"GetFab": large}, options=options, observers=[observer]) as server:
        with pytest.raises(EOFError):
            await server.post("get-fab", b"x")
        assert (await server.post("get-fab")).status == 200
    assert observer.seen == [
        ("GetFab", "RESOURCE_EXHAUSTED", "max_answers"),
        ("GetFab", "OK", ""),
    ]


async def test_held_calls_make_room_for_others(serving: Any, clock: MockClock) -> None:
    held: list[trio.Event] = []

    @asynccontextmanager
    async def hold(request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        held.append(trio.Event())
        held[-1].set()
        with server.holds.open(1000):
            await trio.sleep_forever()
        yield b""

    async with serving(pull=hold, options=HttpOptions(max_calls=3)) as server:
        clients = [await server.http1() for _ in range(4)]
        for client in clients[:3]:
            await client.send(head("POST", FLEET + "pull-task-ins", 0))
            await trio.testing.wait_all_tasks_blocked(0.05)
        await clients[3].send(head("POST", FLEET + "pull-task-ins", 0))
        assert (await clients[0].answer()).status == 200
        assert (await server.post("create-node", b"\x09")).status == 200
        assert (await clients[1].answer()).status == 200
        server.holds.release()
        assert len(held) == 4


async def test_a_call_too_many_is_refused_at_once_and_a_ping_last(
    serving: Any, clock: MockClock
) -> None:
    async def slow(request: bytes, caller: Caller) -> bytes:
        await proceed.wait()
        return b""

    proceed = trio.Event()
    async with serving(unary={"GetRun": slow}, options=HttpOptions(max_calls=2)) as server:
        clients = [await server.http1() for _ in range(2)]
        for client in clients:
            await client.send(head("POST", FLEET + "get-run", 0))
            await trio.testing.wait_all_tasks_blocked(0.05)
        refused = await server.post("pull-task-ins")
        assert (refused.status, "retry-after" in refused.headers) == (503, True)
        assert "2 calls are under way" in refused.problem["detail"]
        assert server.turned_away == ["PullTaskIns: max_calls"]
        with pytest.raises(EOFError):
            await server.post("push-task-res")  # which makes Flower's clients try again
        assert (await server.post("ping")).status == 200
        proceed.set()
        for client in clients:
            assert (await client.answer()).status == 200
        assert (await server.post("get-fab")).status == 200


async def test_a_ping_that_there_is_no_room_for_is_answered(serving: Any, clock: MockClock) -> None:
    async def full(request: bytes, caller: Caller) -> bytes:
        raise Refused(Status.RESOURCE_EXHAUSTED, "no room")

    async with serving(unary={"Ping": full, "CreateNode": full}) as server:
        answer = await server.post("ping", b"x")
        assert (answer.status, answer.body) == (200, b""), "the node is not known"
        assert (await server.post("create-node", b"\x09")).status == 507
