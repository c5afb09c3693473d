"""The HTTP paths of the admin surface. All of them only read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeAlias

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router

from superlink_trio.admin.metrics import Metrics
from superlink_trio.admin.overview import Overview
from superlink_trio.supervision import task_tree
from superlink_trio.transport.http import Site

_Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


def admin_site(overview: Overview, metrics: Metrics, stopping: trio.Event) -> Site:
    """Make what the admin address serves."""
    paths: dict[str, _Handler] = {
        "/livez": _live,
        "/readyz": _readiness(overview),
        "/status": _status(overview),
        "/metrics": _metrics(metrics),
        "/tasks": _tasks,
    }
    routes = [Route(path, handler, methods=["GET"]) for path, handler in paths.items()]
    return Site(app=Router(routes, redirect_slashes=False), release=stopping.set)


async def _live(_: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _tasks(_: Request) -> Response:
    return PlainTextResponse(task_tree())


def _readiness(overview: Overview) -> _Handler:
    async def readiness(_: Request) -> Response:
        faults = overview.history.faults()
        if not faults:
            return PlainTextResponse("ok\n")
        lines = "".join(f"{fault}\n" for fault in faults)
        return PlainTextResponse(lines, HTTPStatus.SERVICE_UNAVAILABLE)

    return readiness


def _status(overview: Overview) -> _Handler:
    async def status(_: Request) -> Response:
        return JSONResponse(overview.document())

    return status


def _metrics(metrics: Metrics) -> _Handler:
    async def scrape(request: Request) -> Response:
        page, kind = await metrics.page(request.headers.get("accept", ""))
        # Starlette would add a charset to a type that has one.
        return Response(page, headers={"content-type": kind})

    return scrape
