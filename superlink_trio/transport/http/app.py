"""The Fleet API over HTTP: which path is which call, and how a call's end becomes an answer.

An ASGI application. Of its server it wants more than most: `send` has to return only when the
bytes were handed to the system, and to raise `ClientGone` when they cannot be (ASGI 2.4 asks for
such an OSError); and a call whose client goes away has to be cancelled.

Flower's clients repeat a call only when no answer comes at all. Any status but 200 is final to
them: the result they pushed is lost, the node they asked for never is. So whatever can be answered
is answered, even while the server is stopping. A pull alone may be refused: they ask again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from http import HTTPStatus
from typing import TypeAlias

import attrs
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from superlink_trio.bulk import join
from superlink_trio.rpc import Api, Caller, CallLimit, Leased, Refused, Status, Unary
from superlink_trio.transport.http.budget import SMALL, Budget, Full
from superlink_trio.transport.http.options import HttpOptions
from superlink_trio.transport.http.problems import Problem

logger = logging.getLogger(__name__)

MEDIA_TYPE = b"application/protobuf"

_PATHS: Mapping[str, str] = {
    # Tried in this order: what is called most comes first.
    "/api/v0/fleet/pull-task-ins": "PullTaskIns",
    "/api/v0/fleet/ping": "Ping",
    "/api/v0/fleet/push-task-res": "PushTaskRes",
    "/api/v0/fleet/create-node": "CreateNode",
    "/api/v0/fleet/delete-node": "DeleteNode",
    "/api/v0/fleet/get-run": "GetRun",
    "/api/v0/fleet/get-fab": "GetFab",
    # The clients of 1.9 to 1.11 put a slash too many before these two.
    "//api/v0/fleet/get-run": "GetRun",
    "//api/v0/fleet/get-fab": "GetFab",
}

# The first byte of a DeleteNodeRequest: field 1, a message. In a CreateNodeRequest it is a double.
_DELETE_NODE = b"\x0a"


class ClientGone(OSError):
    """The client did not get its answer, and will not."""


def fleet_app(api: Api, options: HttpOptions, stopping: trio.Event) -> ASGIApp:
    """Make the application that serves the Fleet API; `stopping` says that its server is."""
    bodies, answers = Budget(options.max_bodies), Budget(options.max_answers)
    limit = CallLimit(options.max_calls, [api.holds], patience=options.body_timeout)
    ways = {name: _unary(handler) for name, handler in api.unary.items()}
    ways |= {name: _leased(leased, answers, stopping) for name, leased in api.leased.items()}
    ways["Ping"] = _ping(api.unary["Ping"])
    ways["CreateNode"] = _create_or_delete(ways["CreateNode"], ways["DeleteNode"])
    app = Starlette(
        routes=[
            # A class instance: Starlette takes a function for a handler of Request objects.
            Route(path, _Endpoint(name, ways[name], options, bodies, limit), methods=["POST"])
            for path, name in _PATHS.items()
        ],
        exception_handlers={HTTPException: _no_such_call},
    )
    # A path that ends in a slash is no other path.
    app.router.redirect_slashes = False
    return app


_Way: TypeAlias = Callable[[bytes, Caller, Send], Awaitable[None]]
"""How a call is answered, once its request is here."""


def _unary(handler: Unary) -> _Way:
    async def answer(request: bytes, caller: Caller, send: Send) -> None:
        await _send_ok(send, await handler(request, caller))

    return answer


def _ping(handler: Unary) -> _Way:
    """Answer a ping that there is no room for all the same.

    Refused, it would be repeated without a pause. An empty response says that the node is not
    known: it stops pinging, and lives by its pulls.
    """

    async def answer(request: bytes, caller: Caller, send: Send) -> None:
        try:
            response = await handler(request, caller)
        except Refused as refusal:
            if refusal.status is not Status.RESOURCE_EXHAUSTED:
                raise
            response = b""
        await _send_ok(send, response)

    return answer


def _leased(leased: Leased, answers: Budget, stopping: trio.Event) -> _Way:
    async def answer(request: bytes, caller: Caller, send: Send) -> None:
        if stopping.is_set():
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "The server is stopping.")
        async with leased(request, caller) as response:
            try:
                with answers.take(len(response)):
                    await _send_ok(send, response)
            except Full:
                raise Problem(
                    HTTPStatus.SERVICE_UNAVAILABLE, "Too many large answers are on their way."
                ) from None

    return answer


def _create_or_delete(create: _Way, delete: _Way) -> _Way:
    """Tell the two requests apart that the clients of 1.9 and 1.10 post to create-node."""

    async def answer(request: bytes, caller: Caller, send: Send) -> None:
        await (delete if request.startswith(_DELETE_NODE) else create)(request, caller, send)

    return answer


async def _send_ok(send: Send, body: bytes) -> None:
    headers = [(b"content-type", MEDIA_TYPE), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@attrs.frozen
class _Endpoint:
    """One path: from the bytes of a request to those of its answer."""

    name: str
    way: _Way
    options: HttpOptions
    bodies: Budget
    limit: CallLimit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._serve(scope, receive, send)
        except ClientGone:
            # What the call held went back on the way here.
            logger.debug("%s: the client went away", self.name)
        except Problem as problem:
            await _send_problem(problem, send)
        except Refused as refusal:
            await _send_problem(Problem.of(refusal), send)
        except Exception:
            logger.exception("%s failed", self.name)
            await _send_problem(
                Problem(
                    HTTPStatus.INTERNAL_SERVER_ERROR,
                    "The server failed to answer; its log says why.",
                ),
                send,
            )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            self.limit.begin(self.name)
        except Refused as refusal:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, refusal.message) from None
        try:
            yield
        finally:
            self.limit.end()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        _check_media_types(headers)
        length = _declared_length(headers, self.options.max_body)
        host, port = scope["client"]
        caller = Caller(f"{host}:{port}", headers)
        async with AsyncExitStack() as room:
            request = await self._body(length, receive, room)
            # Counted from here on: what is still arriving has limits of its own, and must not keep
            # out what is here, which its client would not send again.
            with self._counted():
                await self.way(request, caller, send)

    async def _body(self, length: int | None, receive: Receive, room: AsyncExitStack) -> bytes:
        """Receive a request, and keep room for it in `room`."""
        with trio.move_on_after(self.options.body_timeout) as patience:
            if length is not None and length >= SMALL:
                await room.enter_async_context(self.bodies.wait_for(length))
            chunks: list[bytes] = []
            size = counted = 0
            while True:
                message = await receive()
                chunk = message["body"]
                chunks.append(chunk)
                size += len(chunk)
                if size > self.options.max_body:
                    raise _too_large(self.options.max_body)
                if length is None and size - counted >= SMALL:
                    self._make_room(size - counted, room)
                    counted = size
                if not message["more_body"]:
                    return chunks[0] if len(chunks) == 1 else await join(chunks)
                patience.deadline += len(chunk) / self.options.min_body_rate
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, "The body took too long.")

    def _make_room(self, size: int, room: AsyncExitStack) -> None:
        # Not waited for: requests that have some room already would wait for each other.
        try:
            room.enter_context(self.bodies.take(size))
        except Full:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "Too many large requests are on their way."
            ) from None


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _check_media_types(headers: Mapping[str, str]) -> None:
    for name in ("content-type", "accept"):
        if MEDIA_TYPE.decode() not in _media_types(headers.get(name, "")):
            value = repr(headers[name]) if name in headers else "missing"
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                f"the header {name.title()} must be {MEDIA_TYPE.decode()}; it is {value}",
            )


def _media_types(value: str) -> list[str]:
    return [item.partition(";")[0].strip().lower() for item in value.split(",")]


def _declared_length(headers: Mapping[str, str], limit: int) -> int | None:
    length = headers.get("content-length")
    if length is None:
        return None
    if not (length.isascii() and length.isdigit()):
        raise Problem(HTTPStatus.BAD_REQUEST, f"the header Content-Length is {length!r}")
    # More digits than any limit has are not worth reading.
    if len(length) > 18 or int(length) > limit:
        raise _too_large(limit)
    return int(length)


def _too_large(limit: int) -> Problem:
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request is larger than {limit} bytes")


async def _send_problem(problem: Problem, send: Send) -> None:
    start = {"type": "http.response.start", "status": problem.status, "headers": problem.headers}
    try:
        await send(start)
        await send({"type": "http.response.body", "body": problem.body})
    except ClientGone:
        logger.debug("the client went away before it was told: %s", problem.detail)


async def _no_such_call(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} is not what this path is for: use POST"
        problem = Problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, {"allow": "POST"})
    else:
        problem = Problem(HTTPStatus(error.status_code), "there is no such call")
    response = Response(problem.body, problem.status)
    response.raw_headers = list(problem.headers)
    return response
