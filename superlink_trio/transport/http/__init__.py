"""HTTP under Trio: ASGI applications over Hypercorn's protocol code, as supervised services."""

from __future__ import annotations

from superlink_trio.transport.http.options import HttpOptions
from superlink_trio.transport.http.protobuf import protobuf_site
from superlink_trio.transport.http.rest import fleet_site
from superlink_trio.transport.http.server import listen, serve_http
from superlink_trio.transport.http.site import ClientGone, Site

__all__ = [
    "ClientGone",
    "HttpOptions",
    "Site",
    "fleet_site",
    "listen",
    "protobuf_site",
    "serve_http",
]
