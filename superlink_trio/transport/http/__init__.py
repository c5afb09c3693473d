"""REST under Trio: Starlette over Hypercorn's protocol code, as a supervised service."""

from __future__ import annotations

from superlink_trio.transport.http.options import HttpOptions
from superlink_trio.transport.http.server import serve_http

__all__ = ["HttpOptions", "serve_http"]
