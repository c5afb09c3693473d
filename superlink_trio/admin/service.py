"""The admin surface as a supervised service."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence

import attrs
import trio

from superlink_trio.admin.overview import Overview
from superlink_trio.config import Address, SuperLinkConfig
from superlink_trio.transport.listening import needed_by

_log = logging.getLogger(__name__)

# Operators, probes and scrapers are few; each browser keeps a handful of connections.
_MOST_CONNECTIONS = 64

# What is read and answered is small, and nobody waits for who is slow.
_LARGEST_REQUEST = 64 * 1024


@attrs.frozen(kw_only=True)
class AdminService:
    """Serves operators over HTTP."""

    config: SuperLinkConfig
    overview: Overview
    sockets: Sequence[socket.socket] = ()
    """What listens at the address already, if anything does."""

    async def __call__(
        self, *, stopping: trio.Event, task_status: trio.TaskStatus[Address]
    ) -> None:
        """Serve until `stopping`; `task_status` gets the address that was bound."""
        # What is heavy to import is for those who ask for it.
        from superlink_trio.admin.metrics import Metrics
        from superlink_trio.admin.site import admin_site
        from superlink_trio.transport.http import HttpOptions, serve_http

        address = self.config.admin_address
        assert address is not None, "who gives no address has no admin surface"
        options = HttpOptions.of(
            self.config, max_connections=_MOST_CONNECTIONS, max_message_size=_LARGEST_REQUEST
        )
        sources = self.overview.sources
        metrics = Metrics(self.overview.history, sources)
        if not address.loopback:
            _log.warning(
                "Whoever reaches %s can read how this SuperLink is doing, over plain HTTP: no "
                "secrets, but nodes, runs and addresses; 127.0.0.1 keeps it to this machine",
                address,
            )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sources.measure)
            with needed_by("the admin surface"):
                await serve_http(
                    admin_site(self.overview, metrics, stopping, loopback=address.loopback),
                    address,
                    sockets=self.sockets,
                    options=options,
                    stopping=stopping,
                    task_status=task_status,
                )
            nursery.cancel_scope.cancel()
