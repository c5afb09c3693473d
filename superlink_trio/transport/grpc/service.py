"""gRPC servers as a config wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from superlink_trio.config import Address, SuperLinkConfig
from superlink_trio.rpc import Api, Health
from superlink_trio.transport.grpc.credentials import server_credentials
from superlink_trio.transport.grpc.handshakes import Handshakes
from superlink_trio.transport.grpc.loop import TrioEventLoop
from superlink_trio.transport.grpc.server import GrpcOptions, serve_grpc
from superlink_trio.transport.grpc.strangers import Elsewhere

if TYPE_CHECKING:
    from superlink_trio.credentials import Certificates

_OVER_TLS = (
    "this port speaks TLS: clients need --root-certificates with its authority's certificate, and "
    "not --insecure"
)
_WITH_CERTIFICATES = f"{_OVER_TLS}, and a certificate of --driver-client-ca"
_OTHERS = "health checks of a port and scanners make none either"


@attrs.frozen(kw_only=True)
class GrpcService:
    """What all gRPC servers of a SuperLink share."""

    current: Callable[[], SuperLinkConfig]
    """The config in force: what may change is asked for whenever it is needed."""
    loop: TrioEventLoop
    certificates: Certificates | None
    """None: plain gRPC."""
    health: Health
    shared: bool = False
    """Whether other processes serve the same ports."""

    async def serve(
        self,
        apis: Sequence[Api],
        address: Address,
        *,
        connections: int,
        clients_need_certificates: bool = False,
        elsewhere: Elsewhere,
        stopping: trio.Event,
        task_status: trio.TaskStatus[Address],
    ) -> None:
        """Serve some APIs, and health checks, on one address; otherwise like `serve_grpc`."""
        credentials = handshakes = None
        if self.certificates is not None:
            needed = _WITH_CERTIFICATES if clients_need_certificates else _OVER_TLS
            handshakes = Handshakes(f"{needed} ({_OTHERS})")
            credentials = server_credentials(
                self.certificates,
                clients_need_certificates=clients_need_certificates,
                began=handshakes.began,
            )
        await serve_grpc(
            # Watches are the first to give way.
            [self.health.api(), *apis],
            address,
            loop=self.loop,
            credentials=credentials,
            elsewhere=elsewhere,
            options=GrpcOptions.of(self.current(), max_connections=connections, shared=self.shared),
            max_calls=lambda: self.current().max_calls,
            handshakes=handshakes,
            stopping=stopping,
            task_status=task_status,
        )
