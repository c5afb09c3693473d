from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from superlink_trio.credentials.calls import Calls, Denied


async def test_calls_end_when_what_they_have_shown_is_revoked(autojump_clock: MockClock) -> None:
    calls, ended = Calls("token"), list[bytes]()

    async def call(shown: bytes) -> None:
        with pytest.raises(Denied, match="the token was revoked"), calls.calling(shown):
            await trio.sleep_forever()
        ended.append(shown)

    async with trio.open_nursery() as nursery:
        for shown in (b"one", b"one", b"other"):
            nursery.start_soon(call, shown)
        await trio.sleep(1)
        calls.revoke(b"one")
        calls.revoke(b"one that nobody has shown")
        await trio.sleep(1)
        assert ended == [b"one", b"one"]
        calls.revoke(b"other")


async def test_a_call_that_has_ended_is_left_alone(autojump_clock: MockClock) -> None:
    calls = Calls("key")
    with calls.calling(b"one"):
        await trio.sleep(1)
    calls.revoke(b"one")
    await trio.sleep(1)
