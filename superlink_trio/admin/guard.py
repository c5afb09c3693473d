"""What every request to the admin surface has to be, and what every answer says to browsers."""

from __future__ import annotations

import ipaddress
from http import HTTPStatus

import attrs
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("GET", "HEAD")

_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@attrs.frozen
class Guard:
    """Lets only requests through that read, and that were meant for this place."""

    app: ASGIApp
    loopback: bool = attrs.field(kw_only=True)
    """Answer only requests for this machine by a name of its own.

    A foreign page may have its own name resolved to 127.0.0.1 and have a browser here ask for it
    (DNS rebinding); the header Host gives it away.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, as an ASGI application."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            elif scope["method"] == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        answer = self._refusal(scope) or self.app
        await answer(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        host = Headers(scope=scope).get("host", "")
        if self.loopback and not _is_loopback(host):
            return PlainTextResponse(
                f"This answers to localhost and loopback addresses only, not to {host!r}.\n",
                HTTPStatus.MISDIRECTED_REQUEST,
            )
        if scope["method"] not in _METHODS:
            return PlainTextResponse(
                f"{scope['method']} is not for here: everything can only be read, with GET.\n",
                HTTPStatus.METHOD_NOT_ALLOWED,
                {"Allow": ", ".join(_METHODS)},
            )
        return None


def _is_loopback(host: str) -> bool:
    """Whether a Host header names this machine, whatever the port."""
    name = host.partition(":")[0]
    if host.startswith("["):
        name = host[1:].partition("]")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        name = name.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")
