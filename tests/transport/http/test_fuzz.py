"""Anything at all over a real socket: HTTP or nothing comes back, and the others are served."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transport.http.clients import FLEET, head

from examples import at_most
from superlink_trio.transport.http import HttpOptions

OPTIONS = HttpOptions(grace=0, request_timeout=2, max_message_size=1000)

methods = st.sampled_from(["POST", "GET", "OPTIONS", "CONNECT", "PRI", "post"]) | st.text(
    string.ascii_letters + string.punctuation + "é ", max_size=8
)
paths = st.sampled_from(
    [
        *(FLEET + call for call in ("ping", "pull-task-ins", "create-node", "push-task-res")),
        *(
            "/",
            "*",
            "//",
            "/..",
            "/%ff",
            FLEET + "ping/",
            FLEET + "ping?x=%00",
            "http://x/" + FLEET,
        ),
    ]
) | st.text(st.characters(codec="latin-1"), max_size=30)
media = st.sampled_from(["application/protobuf", "APPLICATION/PROTOBUF;q=1", "*/*", ""]) | st.text(
    string.printable, max_size=20
)
fields = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("content-type", "accept", "content-length", "transfer-encoding", "connection"),
                *("upgrade", "expect", "host", "http2-settings", "te", "trailer", "x"),
            ]
        ),
        media
        | st.sampled_from(
            ["chunked", "close", "keep-alive", "upgrade", "h2c", "websocket", "100-continue"]
        )
        | st.sampled_from(["0", "5", "-1", "+5", "5, 5", "999999999999999999999", "0x5", "٥"]),
    ),
    max_size=5,
)
bodies = st.binary(max_size=40) | st.sampled_from(
    [b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\nx", b"5;x=y\r\nhello\r\n", bytes(1001)]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request: an honest one, or anything that looks a little like one."""
    body = draw(bodies)
    if draw(st.booleans()):
        length = draw(st.none() | st.just(len(body)) | st.integers(0, 60))
        return head(draw(methods), draw(paths), length, draw(fields)) + body
    lines = [
        f"{draw(methods)} {draw(paths)} HTTP/{draw(st.sampled_from(['1.1', '1.0', '2', 'x']))}"
    ]
    lines += [f"{name}: {value}" for name, value in draw(fields)]
    return draw(st.sampled_from(["\r\n", "\n"])).join([*lines, "", ""]).encode() + body


@settings(
    max_examples=at_most(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(st.lists(requests(), min_size=1, max_size=3), min_size=1, max_size=5),
    st.integers(1, 60),
)
def test_what_comes_back_is_http_or_nothing(
    serving: Any, connections: Sequence[Sequence[bytes]], chunk: int
) -> None:
    async def main() -> None:
        async with serving(options=OPTIONS) as server:
            for sent in connections:
                received = await _exchange(server, b"".join(sent), chunk)
                _expect_answers(received)
                assert (await server.post("ping", b"x")).body == b"Ping:x"

    trio.run(main)


async def _exchange(server: Any, data: bytes, chunk: int) -> bytes:
    """Send bytes in chunks of a size, then no more; give all that comes back."""
    received = b""

    async def send(stream: trio.SocketStream) -> None:
        try:
            for start in range(0, len(data), chunk):
                await stream.send_all(data[start : start + chunk])
                await trio.lowlevel.checkpoint()
            await stream.send_eof()
        except trio.BrokenResourceError:
            return  # closed by the server, which is an answer as well

    async with await server.connect() as stream, trio.open_nursery() as nursery:
        nursery.start_soon(send, stream)
        try:
            with trio.fail_after(10):
                while part := await stream.receive_some(65_536):
                    received += part
        except trio.BrokenResourceError:
            pass
        nursery.cancel_scope.cancel()
    return received


def _expect_answers(received: bytes) -> None:
    """Read answers of HTTP/1.1 to the end: each is whole, and says its length."""
    while received:
        head, end, received = received.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        assert end, head
        assert re.fullmatch(rb"HTTP/1\.1 [1-5]\d\d .*", status), head
        headers = dict(line.split(b": ", 1) for line in lines)
        if not status.startswith(b"HTTP/1.1 1"):
            length = int(headers[b"content-length"])
            assert len(received) >= length, head
            received = received[length:]
