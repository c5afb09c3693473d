"""The Fleet API over HTTP: which path is which call, and how a call's end becomes an answer.

An ASGI application. Of its server it wants more than most: `receive` has to give a body as a whole,
and to raise what is to be answered when it cannot; `send` has to return only when the bytes were
handed to the system, and to raise `ClientGone` when they cannot be (ASGI 2.4 asks for such an
OSError); a call whose client goes away has to be cancelled, and a connection closed whose call ends
without an answer.

Flower's clients repeat a call only when no answer comes at all. Any status but 200 is final to
them: the result they pushed is lost, the node they asked for never is. So what can be answered is
answered, even while the server is stopping, and what cannot be answered now is not answered. A pull
and a ping alone may be refused: they are made again, whatever comes.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from http import HTTPStatus
from typing import TypeAlias

import attrs
import trio
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from superlink_trio.config.address import Address
from superlink_trio.rpc import (
    Api,
    Caller,
    CallLimit,
    CallObserver,
    Leased,
    Refused,
    Status,
    Unary,
    fault,
    observed,
)
from superlink_trio.transport.http.budget import Budget, Full
from superlink_trio.transport.http.options import HttpOptions
from superlink_trio.transport.http.problems import Problem, too_large
from superlink_trio.transport.http.site import ClientGone, Site

_log = logging.getLogger(__name__)

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

# Clients make these calls again, whatever the answer was.
_MADE_AGAIN = {"PullTaskIns", "Ping"}

# Answers up to this many bytes are not counted: a connection itself takes more.
_SMALL = 4096

# The first byte of a DeleteNodeRequest: field 1, a message. In a CreateNodeRequest it is a double.
_DELETE_NODE = b"\x0a"


def fleet_site(
    api: Api,
    options: HttpOptions,
    stopping: trio.Event,
    *,
    observers: Sequence[CallObserver] = (),
    max_calls: Callable[[], int] | None = None,
) -> Site:
    """Make what serves the Fleet API; `stopping` says that its server is.

    `observers` see every call, one too whose answer there is no room for. `max_calls` gives the
    limit of that name where it may change, in the place of the option.
    """
    answers = Budget(options.max_answers)
    counted = {name: _counted(handler, answers) for name, handler in api.unary.items()}
    api = attrs.evolve(api, unary=counted)
    if observers:
        api = observed(api, observers)
    most = max_calls or (lambda: options.max_calls)
    limit = CallLimit(most, [api.holds], patience=options.request_timeout)
    ways = {name: _unary(handler, answers) for name, handler in api.unary.items()}
    ways |= {name: _leased(leased, answers, stopping) for name, leased in api.leased.items()}
    ways["Ping"] = _ping(api.unary["Ping"])
    ways["CreateNode"] = _create_or_delete(ways["CreateNode"], ways["DeleteNode"])
    routes = [
        # A class instance: Starlette takes a function for a handler of Request objects.
        Route(path, _Endpoint(name, ways[name], api.turned_away, options, limit))
        for path, name in _PATHS.items()
    ]
    return Site(
        # A path that ends in a slash is no other path.
        app=Router(routes, redirect_slashes=False, default=_no_such_call),
        release=api.holds.release,
        drain=api.drain,
    )


_Way: TypeAlias = Callable[[bytes, Caller, Send], Awaitable[None]]
"""How a call is answered, once its request is here."""


def _counted(handler: Unary, answers: Budget) -> Unary:
    """Keep room for the answer of a handler: whoever sends it gives that back."""

    async def answer(request: bytes, caller: Caller) -> bytes:
        response = await handler(request, caller)
        _take(answers, response)
        return response

    return answer


def _unary(handler: Unary, answers: Budget) -> _Way:
    async def answer(request: bytes, caller: Caller, send: Send) -> None:
        response = await handler(request, caller)
        try:
            await _send_ok(send, response)
        finally:
            _give_back(answers, response)

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
            _take(answers, response)
            try:
                await _send_ok(send, response)
            finally:
                _give_back(answers, response)

    return answer


def _create_or_delete(create: _Way, delete: _Way) -> _Way:
    """Tell the two requests apart that the clients of 1.9 and 1.10 post to create-node."""

    async def answer(request: bytes, caller: Caller, send: Send) -> None:
        await (delete if request.startswith(_DELETE_NODE) else create)(request, caller, send)

    return answer


def _take(answers: Budget, body: bytes) -> None:
    """Keep room for an answer. Raises _NoRoom."""
    if len(body) > _SMALL:
        try:
            answers.take(len(body))
        except Full:
            raise _NoRoom from None


def _give_back(answers: Budget, body: bytes) -> None:
    if len(body) > _SMALL:
        answers.give_back(len(body))


async def _send_ok(send: Send, body: bytes) -> None:
    headers = [(b"content-type", MEDIA_TYPE), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _NoRoom(Refused):
    """There is no room for an answer now."""

    def __init__(self) -> None:
        super().__init__(
            Status.RESOURCE_EXHAUSTED,
            "Too many large messages are on their way.",
            reason="max_answers",
        )


@attrs.frozen
class _Endpoint:
    """One path: from a request to its answer."""

    name: str
    way: _Way
    turned_away: Callable[[str, Caller, Refused], None]
    options: HttpOptions
    limit: CallLimit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._serve(scope, receive, send)
        except ClientGone:
            pass  # what the call held went back on the way here
        except _NoRoom as refusal:
            await self._put_off(refusal.message, send)
        except Problem as problem:
            await _send_problem(problem, send)
        except Refused as refusal:
            if refusal.status is Status.UNAVAILABLE:
                await self._put_off(refusal.message, send)
            else:
                await _send_problem(Problem.of(refusal), send)
        except Exception:
            _log.exception("%s failed", self.name)
            await _send_problem(Problem.of(fault()), send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        _check_method(scope["method"])
        headers = _headers(scope)
        _check_media_types(headers)
        _check_length(headers, self.options.max_message_size)
        request = (await receive())["body"]
        # Counted from here on: what is still arriving has limits of its own, and must not keep
        # out what is here.
        host, port = scope["client"]
        caller = Caller(str(Address(host, port)), headers)
        try:
            self.limit.begin(self.name)
        except Refused as refusal:
            self.turned_away(self.name, caller, refusal)
            _log.debug("%s: put off: %s", self.name, refusal.message)
            await self._put_off(refusal.message, send)
            return
        try:
            await self.way(request, caller, send)
        finally:
            self.limit.end()

    async def _put_off(self, reason: str, send: Send) -> None:
        """Do what makes a client call again later."""
        if self.name in _MADE_AGAIN:
            await _send_problem(Problem(HTTPStatus.SERVICE_UNAVAILABLE, reason), send)


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _check_method(method: str) -> None:
    if method != "POST":
        detail = f"{method} is not what this path is for: use POST"
        raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, {"allow": "POST"})


def _check_media_types(headers: Mapping[str, str]) -> None:
    for name in ("content-type", "accept"):
        if not _names_ours(headers.get(name, "")):
            value = repr(headers[name]) if name in headers else "missing"
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                f"the header {name.title()} must be {MEDIA_TYPE.decode()}; it is {value}",
            )


@lru_cache(maxsize=64)
def _names_ours(value: str) -> bool:
    items = (item.partition(";")[0].strip().lower() for item in value.split(","))
    return MEDIA_TYPE.decode() in items


def _check_length(headers: Mapping[str, str], limit: int) -> None:
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise Problem(HTTPStatus.BAD_REQUEST, f"the header Content-Length is {length!r}")
    # More digits than any limit has are not worth reading.
    if len(length) > 18 or int(length) > limit:
        raise too_large(limit)


async def _send_problem(problem: Problem, send: Send) -> None:
    start = {"type": "http.response.start", "status": problem.status, "headers": problem.headers}
    with suppress(ClientGone):
        await send(start)
        await send({"type": "http.response.body", "body": problem.body})


async def _no_such_call(scope: Scope, receive: Receive, send: Send) -> None:
    await _send_problem(Problem(HTTPStatus.NOT_FOUND, "there is no such call"), send)
