"""The Driver API as a supervised service."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import trio

from superlink_trio.config import Address, SuperLinkConfig
from superlink_trio.driver.api import driver_api
from superlink_trio.driver.rounds import Rounds
from superlink_trio.rpc import CallObserver, observed
from superlink_trio.state import State
from superlink_trio.transport.grpc import GrpcService
from superlink_trio.transport.listening import fitting, needed_by


@attrs.frozen(kw_only=True)
class DriverService:
    """Serves drivers over gRPC. Each life of the service makes its API anew."""

    config: SuperLinkConfig
    state: State
    rounds: Rounds
    grpc: GrpcService
    address: Callable[[], Address]
    """Where to listen, asked for at each start."""
    share: float
    """Of the files that the process may open, what is for this API's connections."""
    observers: Sequence[CallObserver]

    async def __call__(
        self, *, stopping: trio.Event, task_status: trio.TaskStatus[Address]
    ) -> None:
        """Serve until `stopping`; `task_status` gets the address that was bound."""
        api = driver_api(
            self.state,
            hold=self.config.driver_hold,
            message_limit=self.config.max_message_size,
            rounds=self.rounds,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.rounds.report)
            with needed_by("the Driver API"):
                await self.grpc.serve(
                    [observed(api, self.observers)],
                    self.address(),
                    connections=fitting(self.config.max_connections, self.share),
                    clients_need_certificates=self.config.driver_client_ca is not None,
                    stopping=stopping,
                    task_status=task_status,
                )
            nursery.cancel_scope.cancel()
