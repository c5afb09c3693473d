"""The HTTP paths of the admin surface. All of them only read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeAlias

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from superlink_trio.admin.feed import Feed, TooManyViewers
from superlink_trio.admin.guard import Guard
from superlink_trio.admin.metrics import Metrics
from superlink_trio.admin.overview import Overview
from superlink_trio.admin.page import load_page
from superlink_trio.admin.sources import Sources
from superlink_trio.transport.http import Site

_Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


def admin_site(
    overview: Overview, metrics: Metrics, stopping: trio.Event, *, loopback: bool
) -> Site:
    """Make what the admin address serves; `loopback` says that only this machine reaches it."""
    feed = Feed(overview, stopping)
    paths: dict[str, _Handler] = {
        "/": _page(),
        "/events": _events(feed),
        "/livez": _live,
        "/readyz": _readiness(overview),
        "/status": _status(feed),
        "/metrics": _metrics(metrics),
        "/tasks": _tasks(overview.sources),
    }
    routes = [Route(path, handler, methods=["GET"]) for path, handler in paths.items()]
    router = Router(routes, redirect_slashes=False, default=_nothing_here(paths))
    return Site(app=Guard(router, loopback=loopback), release=stopping.set)


def _page() -> _Handler:
    html, policy = load_page()

    async def page(_: Request) -> Response:
        return Response(html, media_type="text/html", headers={"Content-Security-Policy": policy})

    return page


def _events(feed: Feed) -> _Handler:
    async def events(request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        return _EventStream(feed)

    return events


async def _live(_: Request) -> Response:
    return PlainTextResponse("ok\n")


def _tasks(sources: Sources) -> _Handler:
    async def tasks(_: Request) -> Response:
        return PlainTextResponse(await sources.tasks())

    return tasks


def _readiness(overview: Overview) -> _Handler:
    async def readiness(_: Request) -> Response:
        faults = overview.history.faults()
        if not faults:
            return PlainTextResponse("ok\n")
        lines = "".join(f"{fault}\n" for fault in faults)
        return PlainTextResponse(lines, HTTPStatus.SERVICE_UNAVAILABLE)

    return readiness


def _status(feed: Feed) -> _Handler:
    async def status(_: Request) -> Response:
        return JSONResponse(await feed.document())

    return status


def _metrics(metrics: Metrics) -> _Handler:
    async def scrape(request: Request) -> Response:
        page, kind = await metrics.page(request.headers.get("accept", ""))
        # Starlette would add a charset to a type that has one.
        return Response(page, headers={"content-type": kind})

    return scrape


def _nothing_here(paths: dict[str, _Handler]) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    text = f"Nothing is here. What there is: {', '.join(paths)}\n"
    return PlainTextResponse(text, HTTPStatus.NOT_FOUND)


class _EventStream(Response):
    """An answer that goes on until the server stops or the client is gone.

    Starlette's own would wait for a message that the client has gone, which this server does not
    send: it raises when something is sent to one who has.
    """

    media_type = "text/event-stream"

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, as an ASGI application."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        begun = False

        async def write(event: bytes) -> None:
            nonlocal begun
            if not begun:
                begun = True
                await send(start)
            await send({"type": "http.response.body", "body": event, "more_body": True})

        try:
            await self._feed.stream(write)
        except TooManyViewers:
            text = "Too many pages are open here: close some of them.\n"
            refusal = PlainTextResponse(text, HTTPStatus.SERVICE_UNAVAILABLE)
            await refusal(scope, receive, send)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
