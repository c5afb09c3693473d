"""APIs of Flower 1.35 and later over HTTP: protobuf in, protobuf out, one path for each call.

`/v1/fleet/pull-messages` is PullMessages of the API that is served as `fleet`. What a server sends
by and by goes out as frames: four bytes of length, then a message. Errors are JSON.

A call that is held gets an interim response (102) now and then: clients give up after 30 seconds
without a byte. Source: RFC 9110, section 15.2; RFC 2518, section 10.1.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TypeAlias

import attrs
import trio
from starlette.types import Message, Receive, Scope, Send

from superlink_trio.config.address import Address
from superlink_trio.rpc import (
    Api,
    Caller,
    CallLimit,
    ClientGone,
    Leased,
    Refused,
    Status,
    Streaming,
    Unary,
)
from superlink_trio.transport.http.budget import Full
from superlink_trio.transport.http.options import HttpOptions
from superlink_trio.transport.http.problems import STATUS, Problem
from superlink_trio.transport.http.protocol import INTERIM
from superlink_trio.transport.http.site import ClientGone as ConnectionLost
from superlink_trio.transport.http.site import Site

_log = logging.getLogger(__name__)

_MESSAGE = b"application/protobuf"
_STREAM = b"application/flower-protobuf-stream"

_INTERIM_EVERY = 15.0
"""Seconds: half of what clients wait."""

# To its clients each of these means that they may try again, and nothing else does.
_UNAVAILABLE = {Status.RESOURCE_EXHAUSTED, Status.DEADLINE_EXCEEDED, Status.INTERNAL}

_NOT_OFFERED = 1
_Handler: TypeAlias = Callable[[bytes, Caller, Send], Awaitable[None]]

Elsewhere: TypeAlias = Callable[[str], str | None]
"""Says of an API, by its name in paths, where it is served; None: nobody knows."""


def protobuf_site(
    apis: Mapping[str, Api],
    options: HttpOptions,
    *,
    not_offered: str = "",
    elsewhere: Elsewhere = lambda _: None,
    max_calls: Callable[[], int] | None = None,
) -> Site:
    """Make what serves APIs by the names in their paths.

    `not_offered`: what is answered to calls that no API has. `elsewhere` is asked first, for an API
    that is called here by mistake. `max_calls` gives the limit of that name where it may change, in
    the place of the option. Calls of pages in browsers are refused: whoever has one open on this
    machine must not lend it that machine's rights.
    """
    most = max_calls or (lambda: options.max_calls)
    limit = CallLimit(most, [api.holds for api in apis.values()], patience=options.request_timeout)
    handlers = {
        f"/v1/{name}/{_kebab(method)}": handler
        for name, api in apis.items()
        for method, handler in _handlers(api).items()
    }

    def release() -> None:
        for api in apis.values():
            api.holds.release()

    return Site(app=_Application(handlers, limit, not_offered, elsewhere), release=release)


def _kebab(method: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", method).lower()


def _handlers(api: Api) -> Mapping[str, _Handler]:
    return {
        **{name: _unary(call) for name, call in api.unary.items()},
        **{name: _leased(call) for name, call in api.leased.items()},
        **{name: _streaming(call) for name, call in api.streaming.items()},
    }


@attrs.frozen
class _Application:
    """From a request to its answer."""

    handlers: Mapping[str, _Handler]
    limit: CallLimit
    not_offered: str
    elsewhere: Elsewhere

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._serve(scope, receive, send)
        except ConnectionLost:
            _log.debug("%s: the client went away", scope["path"])
        except Full:
            await _send_error(
                Refused(Status.UNAVAILABLE, "Too many large messages are on their way."), send
            )
        except Refused as refusal:
            await _send_error(refusal, send)
        except Problem as problem:
            await _send_json(problem.status, 0, problem.detail, send)
        except Exception:
            _log.exception("%s failed", scope["path"])
            await _send_error(
                Refused(Status.INTERNAL, "The server failed to answer; its log says why."), send
            )

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/health" and scope["method"] in ("GET", "HEAD"):
            await _send(send, HTTPStatus.OK, b"text/plain", b"")
            return
        handler = self.handlers.get(path)
        if handler is None:
            words = self.elsewhere(path.removeprefix("/v1/").partition("/")[0])
            raise Refused(Status.UNIMPLEMENTED, words or self.not_offered, _NOT_OFFERED)
        if scope["method"] != "POST":
            raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} is there for POST only")
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        # Browsers name the page that has them post something, which no other client does.
        if (page := headers.get("origin")) is not None:
            raise Problem(HTTPStatus.FORBIDDEN, f"{path} is not for pages in browsers ({page})")
        request = (await receive())["body"]
        name = path.rpartition("/")[2]
        self.limit.begin("Ping" if name == "send-node-heartbeat" else name)
        host, port = scope["client"]
        caller = Caller(str(Address(host, port)), headers)
        answer = _with_headers(caller, send)
        try:
            await handler(request, caller, answer)
        except Refused as refusal:
            await _send_error(refusal, answer)
        finally:
            self.limit.end()


def _with_headers(caller: Caller, send: Send) -> Send:
    """Give what sends an answer, and ahead of it what the API has put into `caller.headers`."""

    async def answer(message: Message) -> None:
        if caller.headers and message["type"] == "http.response.start":
            more = [(name.encode(), value.encode()) for name, value in caller.headers.items()]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return answer


def _unary(call: Unary) -> _Handler:
    async def answer(request: bytes, caller: Caller, send: Send) -> None:
        await _send(send, HTTPStatus.OK, _MESSAGE, await call(request, caller))

    return answer


def _leased(call: Leased) -> _Handler:
    async def answer(request: bytes, caller: Caller, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            waiting = _Waiting(send)
            nursery.start_soon(waiting.run)
            try:
                async with call(request, caller) as response:
                    await waiting.end()
                    await _send(send, HTTPStatus.OK, _MESSAGE, response)
            except Refused as refusal:
                await waiting.end()
                await _send_error(refusal, send)
            nursery.cancel_scope.cancel()

    return answer


@attrs.define(eq=False)
class _Waiting:
    """Lets a client know that its answer is still to come."""

    send: Send
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ended: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        with self.scope:
            while True:
                await trio.sleep(_INTERIM_EVERY)
                with trio.CancelScope(shield=True):
                    await self.send({"type": INTERIM})
        self.ended.set()

    async def end(self) -> None:
        self.scope.cancel()
        await self.ended.wait()


def _streaming(call: Streaming) -> _Handler:
    async def answer(request: bytes, caller: Caller, send: Send) -> None:
        stream = _Stream(request, send)
        try:
            await call(stream, caller)
        except Refused:
            if stream.begun:
                # Without its end: the connection breaks off, which no client takes for one.
                return
            raise
        await stream.end()

    return answer


@attrs.define(eq=False)
class _Stream:
    """A conversation in which the client says one thing."""

    request: bytes | None
    out: Send
    begun: bool = False

    async def receive(self) -> bytes:
        if self.request is None:
            raise ClientGone
        request, self.request = self.request, None
        return request

    async def send(self, message: bytes) -> None:
        await self._begin()
        frame = len(message).to_bytes(4, "big") + message
        await self.out({"type": "http.response.body", "body": frame, "more_body": True})

    async def end(self) -> None:
        await self._begin()
        await self.out({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            headers = [(b"content-type", _STREAM), (b"connection", b"close")]
            await self.out({"type": "http.response.start", "status": 200, "headers": headers})


async def _send_error(refusal: Refused, send: Send) -> None:
    status = HTTPStatus.SERVICE_UNAVAILABLE
    if refusal.status not in _UNAVAILABLE:
        status = STATUS[refusal.status]
    await _send_json(status, refusal.code, refusal.message, send)


async def _send_json(status: HTTPStatus, code: int, detail: str, send: Send) -> None:
    body = json.dumps({"code": code, "detail": detail}).encode()
    try:
        await _send(send, status, b"application/json", body)
    except ConnectionLost:
        _log.debug("the client went away before it was told: %s", detail)


async def _send(send: Send, status: HTTPStatus, kind: bytes, body: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})
