"""What an HTTP server serves: an ASGI application, and how its calls end when it is to stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio
from starlette.types import ASGIApp

from superlink_trio import rpc


class ClientGone(rpc.ClientGone, OSError):
    """The client did not get its answer, and will not."""


@attrs.frozen(kw_only=True)
class Site:
    """An application for `serve_http`."""

    app: ASGIApp
    release: Callable[[], None]
    """Called first when the server is asked to stop: what is held is answered now."""
    drain: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    """Awaited next, within the grace and before connections are refused; see `Api.drain`."""
