"""The Fleet API as a supervised service, over gRPC or over HTTP."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from superlink_trio.config import Address, SuperLinkConfig
from superlink_trio.fleet.adapter import adapter_api, refusing_adapter_api
from superlink_trio.fleet.api import fleet_api
from superlink_trio.fleet.presence import Presence
from superlink_trio.fleet.supernodes import SuperNodes
from superlink_trio.rpc import Api, CallObserver, observed
from superlink_trio.state import State
from superlink_trio.state.messages import MessageState
from superlink_trio.transport.grpc import GrpcService
from superlink_trio.transport.listening import fitting, needed_by

if TYPE_CHECKING:
    from superlink_trio.credentials import Credentials

_ADAPTER_REFUSED = "GrpcAdapter is not served here, where nodes have to authenticate: use grpc-rere"


@attrs.frozen(kw_only=True)
class FleetService:
    """Serves nodes. Each life of the service makes its APIs anew."""

    current: Callable[[], SuperLinkConfig]
    """The config in force: what may change is asked for whenever it is needed."""
    state: State
    presence: Presence
    credentials: Credentials | None
    grpc: GrpcService
    address: Callable[[], Address]
    """Where to listen, asked for at each start."""
    driver_address: Callable[[], Address | None]
    """Where drivers that have come here by mistake should go, if that is in this process."""
    share: float
    """Of the files that the process may open, what is for this API's connections."""
    observers: Sequence[CallObserver]
    messages: MessageState | None = None
    """Nodes of Flower 1.23 to 1.39, which come over gRPC; None: they are not served."""
    supernodes: SuperNodes | None = None
    """Is told of these nodes."""
    sockets: Sequence[socket.socket] = ()
    """What listens at the address of REST already, if anything does."""

    async def __call__(
        self, *, stopping: trio.Event, task_status: trio.TaskStatus[Address]
    ) -> None:
        """Serve until `stopping`; `task_status` gets the address that was bound."""
        address = self.address()
        connections = fitting(self.config.max_connections, self.share)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.presence.report)
            with needed_by("the Fleet API"):
                if self._over_http:
                    await self._serve_http(address, connections, stopping, task_status)
                else:
                    await self.grpc.serve(
                        self._grpc_apis(),
                        address,
                        connections=connections,
                        elsewhere=self._elsewhere,
                        stopping=stopping,
                        task_status=task_status,
                    )
            nursery.cancel_scope.cancel()

    def _elsewhere(self, service: str) -> str | None:
        if service != "flwr.proto.Driver":
            return None
        address = self.driver_address()
        where = "" if address is None else f", which is on {address}"
        return f"nodes connect here. Drivers connect to the Driver API{where}"

    @property
    def config(self) -> SuperLinkConfig:
        """The config in force at this moment."""
        return self.current()

    @property
    def _over_http(self) -> bool:
        return self.config.fleet_api_type == "rest"

    def _api(self, *, readmit: bool) -> Api:
        return fleet_api(
            self.state,
            hold=lambda: self.current().hold,
            readmit=readmit,
            message_limit=self.config.max_message_size,
            presence=self.presence,
            refusals_are_final=self._over_http,
        )

    def _with_messages(self, api: Api) -> Api:
        if self.messages is None:
            return api
        # What checks signatures takes a tenth of a second to import.
        from superlink_trio.fleet.generations import both
        from superlink_trio.fleet.messages_api import messages_api

        messages = messages_api(
            self.messages,
            hold=lambda: self.current().message_hold,
            readmit=self.config.readmit,
            self_registration=not self.config.enable_supernode_auth,
            simulated=self.config.simulation,
            holds=api.holds,
            nodes=self.supernodes,
        )
        return both(api, messages)

    def _grpc_apis(self) -> Sequence[Api]:
        readmit = self.config.readmit
        keys = None if self.credentials is None else self.credentials.nodes
        if keys is None:
            api = observed(self._with_messages(self._api(readmit=readmit)), self.observers)
            return [api, adapter_api(api)]
        # What checks keys takes a tenth of a second to import.
        from superlink_trio.fleet.authentication import authenticated

        # Behind authentication a node is known by its key, and re-admitted by that.
        api = self._api(readmit=False)
        api = self._with_messages(authenticated(api, self.state, keys, readmit=readmit))
        return [
            observed(api, self.observers),
            observed(refusing_adapter_api(_ADAPTER_REFUSED), self.observers),
        ]

    async def _serve_http(
        self,
        address: Address,
        connections: int,
        stopping: trio.Event,
        task_status: trio.TaskStatus[Address],
    ) -> None:
        # Who serves gRPC need not load it.
        from superlink_trio.transport.http import HttpOptions, fleet_site, serve_http

        certificates = None if self.credentials is None else self.credentials.rest
        options = HttpOptions.of(self.config, max_connections=connections)
        site = fleet_site(
            self._api(readmit=self.config.readmit),
            options,
            stopping,
            observers=self.observers,
            max_calls=lambda: self.current().max_calls,
        )
        await serve_http(
            site,
            address,
            sockets=self.sockets,
            tls=None if certificates is None else certificates.context,
            options=options,
            stopping=stopping,
            task_status=task_status,
        )
