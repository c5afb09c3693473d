"""Who sends slowly is in nobody's way, and what has to give way is sent again by its client."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import trio
from transport.http.clients import FLEET, PROTOBUF, Http1, connect, head
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.rpc import Caller
from superlink_trio.transport.http import HttpOptions

PUSH = FLEET + "push-task-res"
MB = 1_000_000


async def count(request: bytes, caller: Caller) -> bytes:
    return b"%d" % len(request)


async def trickle(client: Http1, size: int = 4200) -> None:
    """Send some bytes a second until the connection is closed: a little more than the least."""
    try:
        while True:
            await client.send(bytes(size))
            await trio.sleep(1)
    except trio.BrokenResourceError:
        pass


async def push(server: Any, size: int, *, rate: int, sent: list[int]) -> None:
    """Push as Flower's clients do, again and again until there is an answer: it has to be 200."""
    for attempt in range(20):
        async with await connect(server.address) as stream:
            client = Http1(stream)
            try:
                await client.send(head("POST", PUSH, size))
                for start in range(0, size, rate):
                    await client.send(bytes(min(rate, size - start)))
                    sent.append(min(rate, size - start))
                    await trio.sleep(1)
                answer = await client.answer()
            except (EOFError, trio.BrokenResourceError):
                await trio.sleep(2**attempt * random.random())
                continue
            assert (answer.status, answer.body) == (200, b"%d" % size)
            return
    pytest.fail("it never got through")


async def test_large_bodies_that_are_announced_and_trickle_keep_nobody_out(
    serving: Any, clock: MockClock
) -> None:
    async with serving(unary={"PushTaskRes": count}) as server, trio.open_nursery() as nursery:
        for _ in range(4):
            client = await server.http1()
            await client.send(head("POST", PUSH, 536_870_912))
            nursery.start_soon(trickle, client)
        await trio.sleep(60)
        with trio.fail_after(5):
            answer = await server.post("push-task-res", bytes(2 * MB))
        assert (answer.status, answer.body) == (200, b"2000000")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("announced", [True, False])
async def test_the_one_whose_end_is_farthest_gives_way(
    serving: Any, clock: MockClock, announced: bool
) -> None:
    options = HttpOptions(max_message_size=2 * MB, max_bodies=4 * MB)
    begun = head("POST", PUSH, 2 * MB)
    if not announced:
        chunked = head("POST", PUSH, None, [*PROTOBUF, ("transfer-encoding", "chunked")])
        begun = chunked + b"%x\r\n" % (2 * MB)
    async with serving(unary={"PushTaskRes": count}, options=options) as server:
        async with trio.open_nursery() as nursery:
            slow = [await server.http1() for _ in range(3)]
            for client in slow:
                await client.send(begun + bytes(MB))
                nursery.start_soon(trickle, client)
            await trio.sleep(30)
            with trio.fail_after(5):
                answer = await server.post("push-task-res", bytes(2 * MB - 1))
            assert (answer.status, answer.body) == (200, b"1999999")
            nursery.cancel_scope.cancel()
        for client in slow:
            assert await client.ended() == b"", "an answer would be final to them"


async def test_honest_nodes_on_slow_lines_all_get_through(serving: Any, clock: MockClock) -> None:
    options = HttpOptions(max_message_size=2 * MB, max_bodies=5 * MB)
    sent: list[int] = []
    async with (
        serving(unary={"PushTaskRes": count}, options=options) as server,
        trio.open_nursery() as nursery,
    ):
        for number in range(5):
            rate = 150_000 + 10_000 * number
            nursery.start_soon(partial(push, server, 2 * MB, rate=rate, sent=sent))
    assert sum(sent) < 3 * 5 * 2 * MB, "most of it was sent once"


async def test_small_bodies_count_as_well(serving: Any, clock: MockClock) -> None:
    options = HttpOptions(max_message_size=MB // 2, max_bodies=MB)
    async with (
        serving(unary={"PushTaskRes": count}, options=options) as server,
        trio.open_nursery() as nursery,
    ):
        closed = []

        async def watch(client: Http1) -> None:
            assert await client.ended() == b""
            closed.append(client)

        for _ in range(100):
            client = await server.http1()
            await client.send(head("POST", PUSH, 40_000) + bytes(30_000))
            nursery.start_soon(watch, client)
        await wait_all_tasks_blocked(0.05)
        assert len(closed) >= 100 - options.room // 30_000
        assert (await server.post("ping", b"x")).status == 200
        nursery.cancel_scope.cancel()


async def test_a_body_that_stalls_after_a_fast_start_is_given_up(
    serving: Any, clock: MockClock
) -> None:
    async with serving(options=HttpOptions(request_timeout=20)) as server:
        client = await server.http1()
        await client.send(head("POST", PUSH, 5 * MB) + bytes(4 * MB))
        before = trio.current_time()
        assert await client.ended() == b"", "no answer, which would be final to its client"
        assert 20 <= trio.current_time() - before <= 22
