"""`--backend process`: apps run in worker processes on this machine.

    SuperLink                backend.py: open_process_backend
    └── workers              child.py: runs the app

A worker imports from here as well, and needs no Trio.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

from superlink_trio.simulation.backend import App, Backend


def open_process_backend(
    app: App, config: Mapping[str, object]
) -> AbstractAsyncContextManager[Backend]:
    """Open a backend whose workers have loaded the app; see `backend.open_process_backend`."""
    from superlink_trio.simulation.process import backend

    return backend.open_process_backend(app, config)
