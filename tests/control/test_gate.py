"""Who may steer."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.control.gate import gated
from superlink_trio.credentials import ControlTokens
from superlink_trio.rpc import Api, Caller, Duplex, Holds, Refused, Status

HERE, ELSEWHERE = "127.0.0.1:4711", "192.0.2.1:4711"
TOKEN, OTHER = "a" * 32, "b" * 32


async def _start(raw: bytes, caller: Caller) -> bytes:
    return b"started"


async def _stream(duplex: Duplex, caller: Caller) -> None:
    if duplex is not None:
        await trio.sleep_forever()


CONTROL = Api(
    service="test.Control",
    unary={"StartRun": _start},
    leased={},
    streaming={"StreamLogs": _stream},
    holds=Holds(),
)


def digests(*tokens: str) -> set[bytes]:
    return {hashlib.sha256(token.encode()).digest() for token in tokens}


@pytest.fixture
def tokens() -> ControlTokens:
    return ControlTokens(digests(TOKEN, OTHER), source=Path("tokens"))


async def start(api: Api, connection: str, **metadata: str) -> bytes:
    headers = {name.replace("_", "-"): value for name, value in metadata.items()}
    return await api.unary["StartRun"](b"", Caller(connection, headers))


async def stream(api: Api, caller: Caller, *, long: bool = False) -> None:
    await api.streaming["StreamLogs"](object() if long else None, caller)  # type: ignore[arg-type]  # silent


@pytest.mark.parametrize(
    "connection", [HERE, "127.8.8.8:4711", "[::1]:4711", "[::ffff:127.0.0.1]:1"]
)
async def test_this_machine_is_let_in(connection: str) -> None:
    api = gated(CONTROL, None, denied=Status.UNAUTHENTICATED)
    assert await start(api, connection) == b"started"
    await stream(api, Caller(connection))


@pytest.mark.parametrize("connection", [ELSEWHERE, "[2001:db8::1]:4711", "[::ffff:192.0.2.1]:1"])
async def test_others_are_told_how(connection: str) -> None:
    api = gated(CONTROL, None, denied=Status.UNAUTHENTICATED)
    with pytest.raises(Refused, match="ssh -L") as caught:
        await start(api, connection, authorization=f"Bearer {TOKEN}")
    assert caught.value.status is Status.PERMISSION_DENIED
    with pytest.raises(Refused, match="ssh -L"):
        await stream(api, Caller(connection))


@pytest.mark.parametrize("header", ["x_forwarded_for", "forwarded", "via"])
async def test_a_proxy_on_this_machine_speaks_for_nobody_here(header: str) -> None:
    api = gated(CONTROL, None, denied=Status.UNAUTHENTICATED)
    with pytest.raises(Refused, match="through a proxy") as caught:
        await start(api, HERE, **{header: "127.0.0.1"})
    assert caught.value.status is Status.PERMISSION_DENIED


@pytest.mark.parametrize("connection", [HERE, ELSEWHERE])
async def test_who_shows_a_token_is_let_in(connection: str, tokens: ControlTokens) -> None:
    api = gated(CONTROL, tokens, denied=Status.UNAUTHENTICATED)
    for header in (f"Bearer {TOKEN}", f"bearer  {OTHER} "):
        assert await start(api, connection, authorization=header) == b"started"
    assert await start(api, connection, flwr_oidc_access_token=TOKEN) == b"started"
    await stream(api, Caller(connection, {"authorization": f"Bearer {TOKEN}"}))


@pytest.mark.parametrize("connection", [HERE, ELSEWHERE])
@pytest.mark.parametrize(
    ("metadata", "shown"),
    [
        ({}, "no token"),
        ({"authorization": f"Basic {TOKEN}"}, "no token"),
        ({"authorization": "Bearer"}, "an unknown token"),
        ({"authorization": f"Bearer {TOKEN[:-1]}"}, "an unknown token"),
        ({"authorization": f"Bearer {TOKEN}ü"}, "an unknown token"),
        ({"flwr_oidc_access_token": "c" * 32}, "an unknown token"),
    ],
)
async def test_others_are_told_what_is_missing(
    connection: str,
    metadata: dict[str, str],
    shown: str,
    tokens: ControlTokens,
    mock_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = gated(CONTROL, tokens, denied=Status.PERMISSION_DENIED)
    with pytest.raises(Refused, match=f"was shown {shown}") as caught:
        await start(api, connection, **metadata)
    assert caught.value.status is Status.PERMISSION_DENIED
    [line] = [each for each in caplog.messages if "Access denied" in each]
    host = connection.rpartition(":")[0]
    assert line == f"Access denied to flwr on {host}: it showed {shown} (StartRun)"


async def test_a_refusal_names_the_scheme(tokens: ControlTokens, mock_clock: MockClock) -> None:
    api = gated(CONTROL, tokens, denied=Status.UNAUTHENTICATED)
    caller = Caller(ELSEWHERE)
    with pytest.raises(Refused) as caught:
        await stream(api, caller)
    assert caught.value.status is Status.UNAUTHENTICATED
    # The bare word would make flwr ask for another token.
    assert caller.headers["www-authenticate"] == 'Bearer realm="superlink-trio"'


async def test_a_call_ends_when_its_token_is_taken_off_the_list(
    tokens: ControlTokens, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    api = gated(CONTROL, tokens, denied=Status.UNAUTHENTICATED)
    ended: list[str] = []

    async def follow(token: str) -> None:
        try:
            await stream(api, Caller(HERE, {"authorization": f"Bearer {token}"}), long=True)
        except Refused as refusal:
            ended.append(refusal.message)

    async with trio.open_nursery() as nursery:
        for token in (TOKEN, TOKEN, OTHER):
            nursery.start_soon(follow, token)
        await wait_all_tasks_blocked()
        tokens.replace(digests(OTHER))
        await wait_all_tasks_blocked()
        assert len(ended) == 2
        assert "a token that counts no more" in ended[0]
        nursery.cancel_scope.cancel()
    assert "Tokens that let flwr in from everywhere: 1, in tokens" in caplog.messages
    with pytest.raises(Refused, match="an unknown token"):
        await start(api, HERE, authorization=f"Bearer {TOKEN}")
