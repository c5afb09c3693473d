"""The Driver API as a supervised service."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import trio

from superlink_trio.config import Address, SuperLinkConfig
from superlink_trio.driver.api import driver_api
from superlink_trio.rounds import Rounds
from superlink_trio.rpc import CallObserver, observed
from superlink_trio.state import State
from superlink_trio.transport.grpc import GrpcService
from superlink_trio.transport.listening import fitting, needed_by


@attrs.frozen(kw_only=True)
class DriverService:
    """Serves drivers over gRPC. Each life of the service makes its API anew."""

    current: Callable[[], SuperLinkConfig]
    """The config in force: what may change is asked for whenever it is needed."""
    state: State
    rounds: Rounds
    grpc: GrpcService
    address: Callable[[], Address]
    """Where to listen, asked for at each start."""
    fleet_address: Callable[[], Address | None]
    """Where nodes that have come here by mistake should go, if that is in this process."""
    share: float
    """Of the files that the process may open, what is for this API's connections."""
    observers: Sequence[CallObserver]

    async def __call__(
        self, *, stopping: trio.Event, task_status: trio.TaskStatus[Address]
    ) -> None:
        """Serve until `stopping`; `task_status` gets the address that was bound."""
        config = self.current()
        api = driver_api(
            self.state,
            hold=lambda: self.current().driver_hold,
            message_limit=config.max_message_size,
            rounds=self.rounds,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.rounds.report)
            with needed_by("the Driver API"):
                await self.grpc.serve(
                    [observed(api, self.observers)],
                    self.address(),
                    connections=fitting(config.max_connections, self.share),
                    clients_need_certificates=config.driver_client_ca is not None,
                    elsewhere=self._elsewhere,
                    stopping=stopping,
                    task_status=task_status,
                )
            nursery.cancel_scope.cancel()

    def _elsewhere(self, service: str) -> str | None:
        if service not in ("flwr.proto.Fleet", "flwr.proto.GrpcAdapter"):
            return None
        address = self.fleet_address()
        where = "" if address is None else f", which is on {address}"
        return f"drivers connect here. Nodes connect to the Fleet API{where}"
