"""Hypercorn's HTTP/1.1, from bytes to ASGI and back. Nothing else knows Hypercorn, or h11.

Of Hypercorn this uses `H11Protocol`, and overrides the two methods that would look for WebSockets
and HTTP/2. Hypercorn's server itself is not used: an exception in one connection ends it whole, and
it does not stop in bounded time. These names are not public, so they stand in this file alone.
"""

from __future__ import annotations

import sys
import time
from email.utils import formatdate
from functools import cache, lru_cache
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import unquote

import h11
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Body, EndBody, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.trio.worker_context import WorkerContext
from starlette.types import Message, Scope, Send

INTERIM = "superlink.response.interim"
"""The type of a message of ours, beside ASGI's: the answer is still to come."""


class Owner(Protocol):
    """The connection that a protocol works for."""

    def begin(self, scope: Scope, respond: Send) -> Send:
        """Begin to answer a request: by `respond`, in ASGI's messages. Give what takes its body."""

    async def write(self, data: bytes) -> None:
        """Send bytes to the client."""

    def end(self) -> None:
        """Close the connection once all that was written has left."""


class Http11:
    """HTTP/1.1 on one connection."""

    def __init__(
        self,
        owner: Owner,
        *,
        max_header_size: int,
        tls: bool,
        client: tuple[str, int],
        server: tuple[str, int],
    ) -> None:
        wiring: dict[str, Any] = {
            "app": None,  # for Hypercorn's streams, as its task group is
            "config": _config(max_header_size),
            "context": _CONTEXT,
            "task_group": None,
            "connection_state": {},
            "ssl": tls,
            "client": client,
            "server": server,
            "send": self._take,
        }
        self._owner = owner
        self._protocol = _WithoutUpgrades(owner, **wiring)
        self._h11 = self._protocol.connection = _OnlyHttp1(
            h11.SERVER, max_incomplete_event_size=max_header_size
        )

    @property
    def unread(self) -> int:
        """How many bytes have come that belong to no request yet."""
        return len(self._h11.trailing_data[0])

    async def receive(self, data: bytes) -> None:
        """Take bytes from the client; wait while they belong to a request after the one at hand."""
        await self._protocol.handle(RawData(data))

    async def _take(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._owner.write(event.data)
        elif isinstance(event, Closed):
            self._owner.end()


class _WithoutUpgrades(H11Protocol):
    """Hypercorn's protocol, for connections that stay what they are.

    Source: RFC 9110, section 7.8: a server may ignore an upgrade.
    """

    stream: Any  # a _Body in place of Hypercorn's HTTPStream

    def __init__(self, owner: Owner, **wiring: Any) -> None:
        super().__init__(**wiring)
        self._owner = owner

    async def respond(self, message: Message) -> None:
        """Send a part of an answer, one of ASGI's messages."""
        if message["type"] == INTERIM:
            await self._owner.write(_INTERIM_RESPONSE)
            return
        if message["type"] == "http.response.start":
            headers = [*message["headers"], (b"date", _date(int(time.time())))]
            await self.stream_send(Response(STREAM_ID, headers, int(message["status"])))
            return
        if message["body"]:
            await self.stream_send(Body(STREAM_ID, bytes(message["body"])))
        if not message.get("more_body"):
            await self.stream_send(EndBody(STREAM_ID))
            await self.stream_send(StreamClosed(STREAM_ID))

    async def _check_protocol(self, event: h11.Request) -> None:
        """Do without what Hypercorn looks for here: HTTP/2."""

    async def _create_stream(self, request: h11.Request) -> None:
        target = request.target.decode("ascii")
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version.decode("ascii"),
            "method": request.method.decode("ascii").upper(),
            "scheme": "https" if self.ssl else "http",
            "path": unquote(path) if "%" in path else path,
            "raw_path": path.encode("ascii"),
            "query_string": query.encode("ascii"),
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw_items()],
            "client": self.client,
            "server": self.server,
        }
        self.stream = _Body(self._owner.begin(scope, self.respond))


class _Body:
    """A request's body on its way to who answers (Hypercorn calls this a stream)."""

    def __init__(self, put: Send) -> None:
        self._put = put

    async def handle(self, event: StreamEvent) -> None:
        """Hand on what the protocol has received."""
        if isinstance(event, Body):
            await self._put({"type": "http.request", "body": bytes(event.data), "more_body": True})
        elif isinstance(event, EndBody):
            await self._put({"type": "http.request", "body": b"", "more_body": False})


class _OnlyHttp1(h11.Connection):
    """HTTP/1.x and no other version."""

    def next_event(self) -> Any:
        """Refuse other versions.

        Source: RFC 9110, section 15.6.6.
        """
        event = super().next_event()
        if type(event) is h11.Request and not event.http_version.startswith(b"1."):
            raise h11.RemoteProtocolError(
                "not HTTP/1", error_status_hint=HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
            )
        return event

    def send(self, event: Any) -> Any:
        """Say in words what a status means: that may be left out, but some readers want it.

        Source: RFC 9112, section 4.
        """
        data = super().send(event)
        if type(event) is not h11.Response or not data:
            return data
        line, end, fields = data.partition(b"\r\n")
        return line + HTTPStatus(event.status_code).phrase.encode() + end + fields


# h11 need not know: it is in the same state before and after.
_INTERIM_RESPONSE = b"HTTP/1.1 102 Processing\r\n\r\n"

_CONTEXT = WorkerContext(None)


@lru_cache(maxsize=1)
def _date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode("ascii")


@cache
def _config(max_header_size: int) -> Config:
    config = Config()
    config.include_server_header = False
    config.include_date_header = False
    config.h11_max_incomplete_size = max_header_size
    config.keep_alive_max_requests = sys.maxsize
    config.errorlog = None
    return config
