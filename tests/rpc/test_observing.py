"""Calls as whoever watches them sees them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from superlink_trio.logs.context import current, note
from superlink_trio.rpc import (
    Api,
    Call,
    Caller,
    CallLog,
    ClientGone,
    Duplex,
    Holds,
    Refused,
    Status,
    observed,
)
from superlink_trio.transport import http

CALLER = Caller("127.0.0.1:4711")


@attrs.define
class Seen:
    """An observer that remembers."""

    begun_calls: list[Call] = attrs.field(factory=list)
    ended: list[Call] = attrs.field(factory=list)

    def begun(self, call: Call) -> None:
        self.begun_calls.append(call)

    def over(self, call: Call) -> None:
        self.ended.append(call)


async def _ping(raw: bytes, caller: Caller) -> bytes:
    note(node_id=7)
    await trio.sleep(2)
    return b"pong!"


async def _refuse(raw: bytes, caller: Caller) -> bytes:
    raise Refused(Status.NOT_FOUND, "there is no such thing")


async def _break(raw: bytes, caller: Caller) -> bytes:
    raise RuntimeError("broken")


@asynccontextmanager
async def _pull(raw: bytes, caller: Caller) -> AsyncIterator[bytes]:
    note(task_id="t")
    if raw == b"refuse":
        raise Refused(Status.RESOURCE_EXHAUSTED, "full")
    if raw == b"break":
        raise RuntimeError("broken")
    yield b"task"
    if raw == b"late":
        raise RuntimeError("settled badly")


async def _talk(duplex: Duplex, caller: Caller) -> None:
    note(node_id=8)


def api(*observers: Seen | CallLog) -> Api:
    return observed(
        Api(
            service="test.Service",
            unary={"Ping": _ping, "Refuse": _refuse, "Break": _break},
            leased={"Pull": _pull},
            streaming={"Talk": _talk},
            holds=Holds(),
        ),
        observers,
    )


async def test_an_answered_call(autojump_clock: MockClock) -> None:
    seen = Seen()
    assert await api(seen).unary["Ping"](b"ask", CALLER) == b"pong!"
    [call] = seen.ended
    assert seen.begun_calls == [call]
    assert (call.service, call.method, call.caller) == ("test.Service", "Ping", CALLER)
    assert (call.received, call.sent, call.seconds, call.outcome) == (3, 5, 2, "OK")
    assert call.about["node_id"] == 7
    assert call.about["call_id"]


@pytest.mark.parametrize(("method", "status"), [("Refuse", "NOT_FOUND"), ("Break", "INTERNAL")])
async def test_a_call_without_an_answer(method: str, status: str) -> None:
    seen = Seen()
    with pytest.raises(Refused) as caught:
        await api(seen).unary[method](b"", CALLER)
    assert caught.value.status.name == status
    assert [call.outcome for call in seen.ended] == [status]


class InCall(logging.Handler):
    """Remembers what was logged, and what call it was about."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, dict[str, object]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.getMessage(), current()))


@pytest.mark.parametrize("lease", [b"break", b"late"])
async def test_what_failed_is_logged_with_its_call(lease: bytes) -> None:
    log = InCall()
    logger = logging.getLogger("superlink_trio.rpc.observing")
    logger.addHandler(log)
    with pytest.raises(Refused, match="its log says why"):
        async with api().leased["Pull"](lease, CALLER):
            pass
    logger.removeHandler(log)
    [(line, about)] = log.lines
    assert line == "test.Service/Pull failed"
    assert about["call_id"]
    assert about["task_id"] == "t"


async def test_what_a_transport_raises_says_that_nothing_arrived() -> None:
    seen = Seen()
    with pytest.raises(BrokenPipeError):
        async with api(seen).leased["Pull"](b"", CALLER):
            raise BrokenPipeError
    assert [call.outcome for call in seen.ended] == ["CANCELLED"]


async def test_a_refusal_has_its_reason() -> None:
    seen, full = Seen(), Refused(Status.RESOURCE_EXHAUSTED, "full", reason="max_nodes")
    with pytest.raises(Refused):
        await api(seen).unary["Refuse"](b"", CALLER)
    api(seen).turned_away("Ping", CALLER, full)
    found = [(call.method, call.outcome, call.reason) for call in seen.ended]
    refused_by_handler = ("Refuse", "NOT_FOUND", "not_found")
    assert found == [refused_by_handler, ("Ping", "RESOURCE_EXHAUSTED", "max_nodes")]
    assert len(seen.begun_calls) == 2


@pytest.mark.parametrize("gone", [ClientGone, http.ClientGone])
async def test_an_answer_that_nobody_took_was_not_a_fault(gone: type[Exception]) -> None:
    seen = Seen()
    with pytest.raises(gone):
        async with api(seen).leased["Pull"](b"", CALLER):
            raise gone
    assert [call.outcome for call in seen.ended] == ["CANCELLED"]


async def test_a_call_whose_client_went_away(autojump_clock: MockClock) -> None:
    seen = Seen()
    with trio.move_on_after(1):
        await api(seen).unary["Ping"](b"", CALLER)
    assert [call.outcome for call in seen.ended] == ["CANCELLED"]


async def test_a_lease_is_over_when_it_is_settled() -> None:
    seen = Seen()
    async with api(seen).leased["Pull"](b"ask", CALLER) as answer:
        assert answer == b"task"
        assert not seen.ended
    [call] = seen.ended
    assert (call.sent, call.outcome, call.about["task_id"]) == (4, "OK", "t")


@pytest.mark.parametrize(
    ("raw", "outcome"), [(b"refuse", "RESOURCE_EXHAUSTED"), (b"late", "INTERNAL")]
)
async def test_a_lease_that_fails(raw: bytes, outcome: str) -> None:
    seen = Seen()
    with pytest.raises(Refused):
        async with api(seen).leased["Pull"](raw, CALLER):
            pass
    assert [call.outcome for call in seen.ended] == [outcome]


async def test_a_lease_that_is_not_handed_over() -> None:
    seen = Seen()
    with trio.CancelScope() as scope:
        async with api(seen).leased["Pull"](b"", CALLER):
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert [call.outcome for call in seen.ended] == ["CANCELLED"]


async def test_a_conversation() -> None:
    seen = Seen()
    await api(seen).streaming["Talk"](None, CALLER)  # type: ignore[arg-type]  # says nothing
    assert [(call.method, call.about["node_id"]) for call in seen.ended] == [("Talk", 8)]


async def test_every_call_has_an_id_of_its_own() -> None:
    seen = Seen()
    for _ in range(3):
        await api(seen).streaming["Talk"](None, CALLER)  # type: ignore[arg-type]  # says nothing
    assert len({call.about["call_id"] for call in seen.ended}) == 3


async def test_the_log_has_a_line_for_every_call(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "superlink_trio.rpc")
    await api(CallLog()).unary["Ping"](b"ask", CALLER)
    [line] = caplog.messages
    assert line.startswith("Ping from 127.0.0.1:4711: OK in 2000.0 ms, 3 bytes in, 5 out (call_id ")
    assert "node_id 7" in line
