"""REST under Trio: Starlette over Hypercorn's protocol code, as a supervised service."""

from __future__ import annotations

from superlink_trio.transport.rest.options import RestOptions
from superlink_trio.transport.rest.server import serve_rest

__all__ = ["RestOptions", "serve_rest"]
