from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import grpc
import pytest
import trio

from superlink_trio.rpc import Caller, Refused, Status
from superlink_trio.transport.grpc.server import GrpcOptions

OK = (grpc.StatusCode.OK, "")
INTERNAL = (grpc.StatusCode.INTERNAL, "The server failed to answer; its log says why.")


class OutOfTheOrdinary(BaseException):
    pass


async def echo(request: bytes, caller: Caller) -> bytes:
    return request


@asynccontextmanager
async def leased_echo(request: bytes, caller: Caller) -> AsyncIterator[bytes]:
    yield request


def raising(error: BaseException) -> Any:
    async def handler(request: bytes, caller: Caller) -> bytes:
        await trio.lowlevel.checkpoint()
        raise error

    return handler


def leasing_and_raising(error: BaseException, when: str) -> Any:
    @asynccontextmanager
    async def lease(request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        await trio.lowlevel.checkpoint()
        if when == "before":
            raise error
        yield b"answer"
        raise error

    return lease


@attrs.define
class Lease:
    """A leased call that waits to be released, and remembers what became of its answer."""

    answer: bytes = b"answer"
    asked: trio.Event = attrs.field(factory=trio.Event)
    release: trio.Event = attrs.field(factory=trio.Event)
    settled: trio.Event = attrs.field(factory=trio.Event)
    outcome: str = ""

    @asynccontextmanager
    async def handler(self, request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        self.asked.set()
        try:
            await self.release.wait()
            yield self.answer
        except BaseException as error:
            self.outcome = f"put back after {type(error).__name__}"
            raise
        else:
            self.outcome = "committed"
        finally:
            self.settled.set()


@pytest.mark.parametrize("request_", [b"", b"\xff\x00", b"x" * 100_000])
async def test_bytes_arrive_as_they_were_sent(serving: Any, request_: bytes) -> None:
    async with serving(unary={"Echo": echo}, leased={"Lease": leased_echo}) as server:
        assert await server.call("Echo", request_) == request_
        assert await server.call("Lease", request_) == request_


async def test_an_unknown_method_is_unimplemented(serving: Any) -> None:
    async with serving(unary={"Echo": echo}) as server:
        assert (await server.status("Else"))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_handlers_are_trio_code(serving: Any) -> None:
    async def handler(request: bytes, caller: Caller) -> bytes:
        with trio.move_on_after(0) as scope:
            await trio.sleep_forever()
        async with trio.open_nursery() as nursery:
            event = trio.Event()
            nursery.start_soon(event.wait)
            event.set()
        return b"trio" if scope.cancelled_caught else b""

    async with serving(unary={"Call": handler}) as server:
        assert await server.call("Call") == b"trio"


async def test_handlers_know_their_caller(serving: Any) -> None:
    callers = []

    async def handler(request: bytes, caller: Caller) -> bytes:
        callers.append(caller)
        return b""

    async with serving(unary={"Call": handler}) as server:
        await server.call("Call", metadata=(("public-key", "abc"), ("blob-bin", b"\xff")))
        await server.call("Call")
    first, second = callers
    assert first.metadata["public-key"] == "abc"
    assert "blob-bin" not in first.metadata
    assert first.connection.startswith("127.0.0.1:")
    assert first.connection != second.connection


@pytest.mark.parametrize("status", Status)
async def test_a_refusal_reaches_the_client_as_it_is(serving: Any, status: Status) -> None:
    refusal = Refused(status, "item 3: ttl is 0; größer muss es sein")
    leased = {"Leased": leasing_and_raising(refusal, "before")}
    async with serving(unary={"Unary": raising(refusal)}, leased=leased) as server:
        for method in ("Unary", "Leased"):
            code, details = await server.status(method)
            assert (code.name, details) == (status.name, refusal.message)


async def test_a_very_long_refusal_is_shortened(serving: Any) -> None:
    # Past 8 KiB of headers a client reports RESOURCE_EXHAUSTED instead of what was refused.
    refusal = Refused(Status.INVALID_ARGUMENT, "ü" * 100_000)
    async with serving(unary={"Call": raising(refusal)}) as server:
        code, details = await server.status("Call")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.message.startswith(details)
    assert len(details) >= 1000


@pytest.mark.parametrize("kind", ["unary", "before", "after"])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret"),
        asyncio.CancelledError("secret"),
        TimeoutError("secret"),
        ExceptionGroup("secret", [ValueError("secret"), KeyError("secret")]),
        BaseExceptionGroup("secret", [ValueError("secret"), asyncio.CancelledError()]),
        StopAsyncIteration("secret"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_fault_is_logged_once_and_told_without_its_text(
    serving: Any, caplog: pytest.LogCaptureFixture, error: BaseException, kind: str
) -> None:
    unary = {"Call": raising(error)} if kind == "unary" else {}
    leased = {"Call": leasing_and_raising(error, kind)} if kind != "unary" else {}
    async with serving(unary={"Echo": echo, **unary}, leased=leased) as server:
        assert await server.status("Call") == (OK if kind == "after" else INTERNAL)
        assert await server.call("Echo", b"still there") == b"still there"
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "test.Service/Call" in record.message
    assert record.exc_info is not None


@pytest.mark.parametrize("kind", ["unary", "before", "after"])
@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        SystemExit(3),
        OutOfTheOrdinary(),
        BaseExceptionGroup("", [ValueError(), SystemExit(3)]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_concerns_the_program_is_answered_and_raised(
    serving: Any, error: BaseException, kind: str
) -> None:
    unary = {"Call": raising(error)} if kind == "unary" else {}
    leased = {"Call": leasing_and_raising(error, kind)} if kind != "unary" else {}
    statuses = []
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with serving(unary=unary, leased=leased) as server:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                statuses.append(await server.status("Call"))
    assert statuses == [OK if kind == "after" else INTERNAL]
    kinds = (KeyboardInterrupt, SystemExit, OutOfTheOrdinary)
    matching, _ = caught.value.split(kinds)
    assert matching is not None


async def test_a_scope_of_the_handler_itself_is_its_own_affair(serving: Any) -> None:
    async def handler(request: bytes, caller: Caller) -> bytes:
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.lowlevel.checkpoint()
        return b"went on"

    async with serving(unary={"Call": handler}) as server:
        assert await server.call("Call") == b"went on"


async def test_a_client_that_leaves_cancels_its_call(serving: Any) -> None:
    entered, left = trio.Event(), trio.Event()

    async def handler(request: bytes, caller: Caller) -> bytes:
        entered.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            left.set()
            raise
        raise AssertionError

    async with serving(unary={"Call": handler}) as server, trio.open_nursery() as nursery:
        nursery.start_soon(server.call, "Call")
        await entered.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await left.wait()
        assert left.is_set()


async def test_a_lease_is_committed_when_its_answer_has_left(
    serving: Any, client: Any, finish: Any
) -> None:
    lease = Lease()
    async with serving(leased={"Lease": lease.handler}) as server:
        process = client(server, "Lease")
        await lease.asked.wait()
        lease.release.set()
        assert await finish(process) == str(len(lease.answer))
    assert lease.outcome == "committed"


async def test_a_client_hears_ok_without_waiting_until_its_lease_is_settled(serving: Any) -> None:
    heard, settled = trio.Event(), trio.Event()

    @asynccontextmanager
    async def handler(request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        yield b""
        with trio.fail_after(5):
            await heard.wait()
        settled.set()

    async with serving(leased={"Lease": handler}) as server:
        await server.call("Lease")
        heard.set()
        with trio.fail_after(5):
            await settled.wait()


async def test_a_killed_client_leaves_its_lease(serving: Any, client: Any) -> None:
    lease = Lease()
    async with serving(leased={"Lease": lease.handler}) as server:
        process = client(server, "Lease")
        await lease.asked.wait()
        process.send_signal(signal.SIGKILL)
        with trio.fail_after(5):
            await lease.settled.wait()
    assert lease.outcome == "put back after Cancelled"


async def test_a_client_past_its_deadline_leaves_its_lease(
    serving: Any, client: Any, finish: Any
) -> None:
    lease = Lease()
    async with serving(leased={"Lease": lease.handler}) as server:
        process = client(server, "Lease", "0.3")
        await lease.asked.wait()
        with trio.fail_after(5):
            await lease.settled.wait()
        assert await finish(process) == "DEADLINE_EXCEEDED"
    assert lease.outcome == "put back after Cancelled"


async def test_a_frozen_client_that_does_not_take_its_answer_leaves_its_lease(
    serving: Any, client: Any
) -> None:
    lease = Lease(answer=bytes(32_000_000))
    options = GrpcOptions(keepalive_time=0.5, keepalive_timeout=0.5)
    async with serving(leased={"Lease": lease.handler}, options=options) as server:
        process = client(server, "Lease")
        await lease.asked.wait()
        os.kill(process.pid, signal.SIGSTOP)
        lease.release.set()
        with trio.fail_after(20):
            await lease.settled.wait()
    assert lease.outcome == "put back after Cancelled"


async def test_a_frozen_client_that_wakes_in_time_gets_its_answer(
    serving: Any, client: Any, finish: Any
) -> None:
    lease = Lease(answer=bytes(32_000_000))
    async with serving(leased={"Lease": lease.handler}) as server:
        process = client(server, "Lease")
        await lease.asked.wait()
        os.kill(process.pid, signal.SIGSTOP)
        lease.release.set()
        with trio.move_on_after(0.2):
            await lease.settled.wait()
        assert lease.outcome == ""
        os.kill(process.pid, signal.SIGCONT)
        assert await finish(process) == "32000000"
    assert lease.outcome == "committed"


async def test_a_lease_taken_for_a_client_that_has_just_left_goes_back(serving: Any) -> None:
    entered, gone, outcome = trio.Event(), trio.Event(), []

    @asynccontextmanager
    async def handler(request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        entered.set()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await gone.wait()
        try:
            yield b"too late"
        except BaseException:
            outcome.append("put back")
            raise
        outcome.append("committed")

    async with serving(unary={"Echo": echo}, leased={"Lease": handler}) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.call, "Lease")
            await entered.wait()
            nursery.cancel_scope.cancel()
        await server.call("Echo")  # comes behind the cancellation, over the same connection
        gone.set()
    assert outcome == ["put back"]


async def test_messages_of_64_mb_pass_both_ways(serving: Any) -> None:
    message = os.urandom(64 * 1024 * 1024)
    async with serving(unary={"Echo": echo}, leased={"Lease": leased_echo}) as server:
        for method in ("Echo", "Lease"):
            answer = await server.call(method, message, timeout=60)
            assert answer == message


async def test_messages_over_the_limit_are_refused_both_ways(serving: Any) -> None:
    async def grow(request: bytes, caller: Caller) -> bytes:
        return request * 2

    lease = Lease(answer=bytes(1001))
    lease.release.set()
    unary = {"Echo": echo, "Grow": grow}
    leased = {"Lease": lease.handler}
    options = GrpcOptions(max_message_size=1000)
    async with serving(unary=unary, leased=leased, options=options) as server:
        assert await server.call("Echo", bytes(1000)) == bytes(1000)
        for method, request in (("Echo", bytes(1001)), ("Grow", bytes(501)), ("Lease", b"")):
            assert (await server.status(method, request))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert lease.outcome == "put back after Cancelled"


@attrs.frozen
class Announcing:
    """A handler that sends a header ahead of its answer, or of its refusal."""

    refuse: bool

    async def unary(self, request: bytes, caller: Caller) -> bytes:
        caller.headers["key"] = "value"
        if self.refuse:
            raise Refused(Status.NOT_FOUND, "no")
        return request

    @asynccontextmanager
    async def leased(self, request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        yield await self.unary(request, caller)


@pytest.mark.parametrize("kind", ["unary", "leased"])
async def test_headers_go_ahead_of_an_answer_but_not_of_a_refusal(serving: Any, kind: str) -> None:
    handlers = {"Yes": Announcing(refuse=False), "No": Announcing(refuse=True)}
    methods = {name: getattr(handler, kind) for name, handler in handlers.items()}
    async with serving(**{kind: methods}) as server:

        async def headers(method: str) -> dict[str, Any]:
            async with grpc.aio.insecure_channel(str(server.address)) as channel:
                call = channel.unary_unary(f"/test.Service/{method}", None, None)(b"x", timeout=10)
                found = dict(list(await call.initial_metadata()))
                await call.code()
                return found

        assert (await server.loop.run_aio_coroutine(headers("Yes")))["key"] == "value"
        assert "key" not in await server.loop.run_aio_coroutine(headers("No"))
