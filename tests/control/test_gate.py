"""Who may steer."""

from __future__ import annotations

import pytest

from superlink_trio.control.gate import for_this_machine_only
from superlink_trio.rpc import Api, Caller, Duplex, Holds, Refused, Status


async def _start(raw: bytes, caller: Caller) -> bytes:
    return b"started"


async def _stream(duplex: Duplex, caller: Caller) -> None:
    """Say nothing."""


@pytest.fixture
def api() -> Api:
    return for_this_machine_only(
        Api(
            service="test.Control",
            unary={"StartRun": _start},
            leased={},
            streaming={"StreamLogs": _stream},
            holds=Holds(),
        )
    )


@pytest.mark.parametrize("connection", ["127.0.0.1:4711", "127.8.8.8:4711", "[::1]:4711"])
async def test_this_machine_is_let_in(api: Api, connection: str) -> None:
    assert await api.unary["StartRun"](b"", Caller(connection)) == b"started"
    await api.streaming["StreamLogs"](None, Caller(connection))  # type: ignore[arg-type]  # silent


@pytest.mark.parametrize("connection", ["192.0.2.1:4711", "[2001:db8::1]:4711"])
async def test_others_are_told_how(api: Api, connection: str) -> None:
    with pytest.raises(Refused, match="ssh -L") as caught:
        await api.unary["StartRun"](b"", Caller(connection))
    assert caught.value.status is Status.PERMISSION_DENIED
    with pytest.raises(Refused, match="ssh -L"):
        await api.streaming["StreamLogs"](None, Caller(connection))  # type: ignore[arg-type]  # silent
