"""gRPC servers as a config wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from superlink_trio.config import Address, SuperLinkConfig
from superlink_trio.rpc import Api, Health
from superlink_trio.transport.grpc.credentials import server_credentials
from superlink_trio.transport.grpc.loop import TrioEventLoop
from superlink_trio.transport.grpc.server import GrpcOptions, serve_grpc

if TYPE_CHECKING:
    from superlink_trio.credentials import Certificates


@attrs.frozen(kw_only=True)
class GrpcService:
    """What all gRPC servers of a SuperLink share."""

    config: SuperLinkConfig
    loop: TrioEventLoop
    certificates: Certificates | None
    """None: plain gRPC."""
    health: Health

    async def serve(
        self,
        apis: Sequence[Api],
        address: Address,
        *,
        connections: int,
        clients_need_certificates: bool = False,
        stopping: trio.Event,
        task_status: trio.TaskStatus[Address],
    ) -> None:
        """Serve some APIs, and health checks, on one address; otherwise like `serve_grpc`."""
        credentials = None
        if self.certificates is not None:
            credentials = server_credentials(
                self.certificates, clients_need_certificates=clients_need_certificates
            )
        await serve_grpc(
            # Watches are the first to give way.
            [self.health.api(), *apis],
            address,
            loop=self.loop,
            credentials=credentials,
            options=GrpcOptions.of(self.config, max_connections=connections),
            stopping=stopping,
            task_status=task_status,
        )
