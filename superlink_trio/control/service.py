"""The APIs of Flower 1.35 and later on one HTTP port, as a supervised service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from superlink_trio.config import Address, SuperLinkConfig
from superlink_trio.control.api import control_api
from superlink_trio.fleet.messages_api import messages_api
from superlink_trio.fleet.signatures import check_key
from superlink_trio.rpc import CallObserver, observed
from superlink_trio.runtime import runtime_api
from superlink_trio.state.messages import MessageState
from superlink_trio.transport.http import HttpOptions, protobuf_site, serve_http
from superlink_trio.transport.listening import fitting, needed_by

if TYPE_CHECKING:
    from superlink_trio.credentials import Credentials

_NOT_OFFERED = (
    "superlink-trio does not offer this: accounts, connectors, agents and the Hub are Flower's own."
)


@attrs.frozen(kw_only=True)
class FlowerService:
    """Serves nodes, runs and operators. Each life of the service makes its APIs anew."""

    config: SuperLinkConfig
    state: MessageState
    credentials: Credentials | None
    address: Callable[[], Address]
    """Where to listen, asked for at each start."""
    observers: Sequence[CallObserver]

    async def __call__(
        self, *, stopping: trio.Event, task_status: trio.TaskStatus[Address]
    ) -> None:
        """Serve until `stopping`; `task_status` gets the address that was bound."""
        config = self.config
        apis = {
            "fleet": messages_api(self.state, readmit=config.readmit),
            "runtime": runtime_api(self.state, hold=config.driver_hold),
            "control": control_api(self.state, check_key),
        }
        options = HttpOptions.of(config, max_connections=fitting(config.max_connections))
        site = protobuf_site(
            {name: observed(api, self.observers) for name, api in apis.items()},
            options,
            not_offered=_NOT_OFFERED,
        )
        certificates = None if self.credentials is None else self.credentials.rest
        with needed_by("the APIs of Flower 1.35 and later"):
            await serve_http(
                site,
                self.address(),
                tls=None if certificates is None else certificates.context,
                options=options,
                stopping=stopping,
                task_status=task_status,
            )
