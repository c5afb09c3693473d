"""Streaming calls: conversations between a Trio handler and a client of grpc.aio."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import grpc
import grpc.aio
import pytest
import trio

from superlink_trio.rpc import Caller, ClientGone, Duplex, Holds, Refused, Status
from superlink_trio.transport.grpc.server import GrpcOptions

LARGE = b"x" * 5_000_000


@attrs.frozen
class Talk:
    """The client's side of one streaming call."""

    server: Any
    _call: Any

    async def say(self, message: bytes) -> None:
        await self._run(self._call.write, message)

    async def hear(self) -> bytes:
        """Read the next message; `b""` when there is none any more."""
        message = await self._run(self._call.read)
        return message if isinstance(message, bytes) else b""

    async def status(self) -> tuple[grpc.StatusCode, str]:
        return await self._run(self._call.code), await self._run(self._call.details)

    async def finish(self) -> None:
        """Say that nothing more comes."""
        await self._run(self._call.done_writing)

    def leave(self) -> None:
        self._call.cancel()

    async def _run(self, operation: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        async def run() -> Any:
            return await operation(*arguments)

        return await self.server.loop.run_aio_coroutine(run())


@asynccontextmanager
async def talking(server: Any, method: str = "Talk") -> AsyncIterator[Talk]:
    limits = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]

    async def connect() -> Any:
        channel = grpc.aio.insecure_channel(str(server.address), limits)
        multicallable: Any = channel.stream_stream(f"/test.Service/{method}", None, None)
        return channel, multicallable()

    channel, call = await server.loop.run_aio_coroutine(connect())
    try:
        yield Talk(server, call)
    finally:
        with trio.CancelScope(shield=True):
            await server.loop.run_aio_coroutine(channel.close())


async def echo(stream: Duplex, caller: Caller) -> None:
    while True:
        await stream.send(await stream.receive())


async def greet_and_listen(stream: Duplex, caller: Caller) -> None:
    await stream.send(b"hello")
    await stream.receive()


@attrs.frozen
class Ends:
    """A handler that tells how it ended."""

    handler: Any
    entered: trio.Event = attrs.field(factory=trio.Event)
    ended: trio.Event = attrs.field(factory=trio.Event)
    by: list[type[BaseException] | None] = attrs.field(factory=list)

    async def __call__(self, stream: Duplex, caller: Caller) -> None:
        self.entered.set()
        try:
            await self.handler(stream, caller)
        except BaseException as error:
            self.by.append(type(error))
            raise
        else:
            self.by.append(None)
        finally:
            self.ended.set()


async def wait_for_ever(stream: Duplex, caller: Caller) -> None:
    await trio.sleep_forever()


async def test_both_sides_speak_in_turn_for_as_long_as_they_like(serving: Any) -> None:
    async with serving(streaming={"Talk": echo}) as server, talking(server) as talk:
        for message in (b"a", b"\xff\x00", LARGE, b"z"):
            await talk.say(message)
            assert await talk.hear() == message


async def test_the_server_may_speak_first(serving: Any) -> None:
    async with serving(streaming={"Talk": greet_and_listen}) as server, talking(server) as talk:
        assert await talk.hear() == b"hello"


async def test_the_call_ends_well_when_the_handler_returns(serving: Any) -> None:
    async with serving(streaming={"Talk": greet_and_listen}) as server, talking(server) as talk:
        assert await talk.hear() == b"hello"
        await talk.say(b"bye")
        assert await talk.hear() == b""
        assert await talk.status() == (grpc.StatusCode.OK, "")


@pytest.mark.parametrize("status", Status)
async def test_a_refusal_ends_the_stream_with_its_status(serving: Any, status: Status) -> None:
    async def refuse(stream: Duplex, caller: Caller) -> None:
        await stream.send(b"one thing")
        raise Refused(status, "but no more")

    async with serving(streaming={"Talk": refuse}) as server, talking(server) as talk:
        assert await talk.hear() == b"one thing"
        code, details = await talk.status()
    assert (code.name, details) == (status.name, "but no more")


async def test_a_client_that_says_it_is_done_ends_the_conversation(serving: Any) -> None:
    ends = Ends(echo)
    async with serving(streaming={"Talk": ends}) as server, talking(server) as talk:
        await talk.say(b"last words")
        await talk.finish()
        assert await talk.hear() == b"last words"
        assert await talk.status() == (grpc.StatusCode.OK, "")
    assert ends.by == [ClientGone]


@pytest.mark.parametrize("handler", [wait_for_ever, echo])
async def test_a_client_that_leaves_ends_its_handler(
    serving: Any, handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends(handler)
    async with serving(streaming={"Talk": ends}) as server, talking(server) as talk:
        await ends.entered.wait()
        talk.leave()
        with trio.fail_after(5):
            await ends.ended.wait()
    assert ends.by[0] in (trio.Cancelled, ClientGone)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_sending_waits_for_a_slow_client_and_ends_with_it(serving: Any) -> None:
    async def send_without_end(stream: Duplex, caller: Caller) -> None:
        while True:
            await stream.send(LARGE)

    ends = Ends(send_without_end)
    async with serving(streaming={"Talk": ends}) as server, talking(server) as talk:
        assert await talk.hear() == LARGE
        talk.leave()
        with trio.fail_after(5):
            await ends.ended.wait()


async def test_waiting_for_a_message_can_be_bounded(serving: Any) -> None:
    async def impatient(stream: Duplex, caller: Caller) -> None:
        with trio.move_on_after(0.01):
            await stream.receive()
        raise Refused(Status.DEADLINE_EXCEEDED, "too slow")

    async with serving(streaming={"Talk": impatient}) as server, talking(server) as talk:
        assert await talk.status() == (grpc.StatusCode.DEADLINE_EXCEEDED, "too slow")


async def test_a_write_that_is_given_up_arrives_before_the_status(serving: Any) -> None:
    async def impatient(stream: Duplex, caller: Caller) -> None:
        with trio.move_on_after(0.05):
            while True:
                sent.append(stream)
                await stream.send(LARGE)
        raise Refused(Status.DEADLINE_EXCEEDED, "too slow")

    sent: list[Duplex] = []

    ends = Ends(impatient)
    async with serving(streaming={"Talk": ends}) as server, talking(server) as talk:
        await ends.ended.wait()
        for _ in sent:
            assert await talk.hear() == LARGE
        assert await talk.status() == (grpc.StatusCode.DEADLINE_EXCEEDED, "too slow")


async def test_a_client_that_never_reads_does_not_keep_the_server_from_stopping(
    serving: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def impatient(stream: Duplex, caller: Caller) -> None:
        with trio.move_on_after(0.05):
            while True:
                await stream.send(LARGE)

    ends = Ends(impatient)
    async with (
        serving(streaming={"Talk": ends}, options=GrpcOptions(grace=0.1)) as server,
        talking(server),
    ):
        await ends.ended.wait()
        server.stopping.set()
        with trio.fail_after(5):
            await server.ended.wait()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("error", [ValueError("secret"), asyncio.CancelledError("secret")])
async def test_a_fault_is_logged_and_told_without_its_text(
    serving: Any, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    async def fail(stream: Duplex, caller: Caller) -> None:
        raise error

    async with serving(streaming={"Talk": fail}) as server, talking(server) as talk:
        code, details = await talk.status()
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in details
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "test.Service/Talk" in record.message


@pytest.mark.alone
async def test_a_hundred_idle_streams_end_well_when_the_server_stops(serving: Any) -> None:
    holds: list[Holds] = []

    async def wait_in_a_hold(stream: Duplex, caller: Caller) -> None:
        await stream.send(b"hello")
        with holds[0].open(math.inf):
            await trio.sleep_forever()

    async with (
        serving(streaming={"Talk": wait_in_a_hold}, options=GrpcOptions(grace=5)) as server,
        trio.open_nursery() as nursery,
    ):
        holds.append(server.holds)
        outcomes: list[tuple[grpc.StatusCode, str]] = []

        async def idle(task_status: trio.TaskStatus[None]) -> None:
            async with talking(server) as talk:
                assert await talk.hear() == b"hello"
                task_status.started()
                outcomes.append(await talk.status())

        for _ in range(100):
            await nursery.start(idle)
        server.stopping.set()
        before = trio.current_time()
        await server.ended.wait()
        assert trio.current_time() - before < 1
    assert outcomes == [(grpc.StatusCode.OK, "")] * 100


async def test_streams_that_outlast_the_grace_are_cancelled(serving: Any) -> None:
    ends = Ends(wait_for_ever)
    async with (
        serving(streaming={"Talk": ends}, options=GrpcOptions(grace=0.05)) as server,
        talking(server) as talk,
    ):
        await ends.entered.wait()
        server.stopping.set()
        await server.ended.wait()
        assert (await talk.status())[0] is not grpc.StatusCode.OK
    assert ends.by == [trio.Cancelled]
