"""APIs of Flower 1.35 and later on an HTTP port, as a supervised service."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from superlink_trio.config import Address, SuperLinkConfig
from superlink_trio.rpc import Api, CallObserver, observed
from superlink_trio.transport.http import HttpOptions, protobuf_site, serve_http
from superlink_trio.transport.listening import fitting, needed_by

if TYPE_CHECKING:
    from superlink_trio.credentials import Credentials

_NOT_OFFERED = (
    "superlink-trio does not offer this: accounts, connectors, agents and the Hub are Flower's own."
)

MakeApis: TypeAlias = Callable[[SuperLinkConfig], Mapping[str, Api]]
"""Makes the APIs of one port, by the names in their paths."""


@attrs.frozen(kw_only=True)
class HttpService:
    """Serves APIs on one port. Each life of the service makes them anew."""

    current: Callable[[], SuperLinkConfig]
    apis: MakeApis
    credentials: Credentials | None
    address: Callable[[], Address]
    """Where to listen, asked for at each start."""
    elsewhere: Callable[[str], str | None]
    """Where an API is, by its name in paths, that is called here by mistake."""
    observers: Sequence[CallObserver]
    needed_by: str
    """What cannot be served when the port cannot be had."""
    beside: Sequence[Callable[[], Awaitable[None]]] = ()
    """What runs for as long as the port is served."""
    sockets: Sequence[socket.socket] = ()
    """What listens at the address already, if anything does."""

    async def __call__(
        self, *, stopping: trio.Event, task_status: trio.TaskStatus[Address]
    ) -> None:
        """Serve until `stopping`; `task_status` gets the address that was bound."""
        config = self.current()
        options = HttpOptions.of(config, max_connections=fitting(config.max_connections))
        site = protobuf_site(
            {name: observed(api, self.observers) for name, api in self.apis(config).items()},
            options,
            not_offered=_NOT_OFFERED,
            elsewhere=self.elsewhere,
            max_calls=lambda: self.current().max_calls,
        )
        certificates = None if self.credentials is None else self.credentials.rest
        async with trio.open_nursery() as nursery:
            for each in self.beside:
                nursery.start_soon(each)
            with needed_by(self.needed_by):
                await serve_http(
                    site,
                    self.address(),
                    sockets=self.sockets,
                    tls=None if certificates is None else certificates.context,
                    options=options,
                    stopping=stopping,
                    task_status=task_status,
                )
            nursery.cancel_scope.cancel()
