"""Flower 1.35 and later as a part of the tree.

flower          rest for one
├── http        nodes, the processes of runs, and the command line `flwr`, on one port
└── apps        a process for each run
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from superlink_trio.config import Address, SuperLinkConfig
from superlink_trio.control.api import control_api
from superlink_trio.control.gate import for_this_machine_only
from superlink_trio.fleet.messages_api import messages_api
from superlink_trio.fleet.signatures import check_key
from superlink_trio.rpc import CallObserver, observed
from superlink_trio.runtime import Launcher, runtime_api
from superlink_trio.state.messages import MessageState
from superlink_trio.supervision import Child, Group, Restart, Strategy
from superlink_trio.transport.http import HttpOptions, protobuf_site, serve_http
from superlink_trio.transport.listening import fitting, needed_by
from superlink_trio.wire import messages_pb2 as pb

if TYPE_CHECKING:
    from superlink_trio.credentials import Credentials

_NOT_OFFERED = (
    "superlink-trio does not offer this: accounts, connectors, agents and the Hub are Flower's own."
)


# What a server needs beyond the grace of its calls: to cancel what is left and see it end.
_DRAIN = 0.2


def flower_group(
    *,
    current: Callable[[], SuperLinkConfig],
    state: MessageState,
    credentials: Credentials | None,
    bound: Callable[[], Address | None],
    observers: Sequence[CallObserver],
) -> Group:
    """Describe the part of the tree; `bound` says where its HTTP port listens, once it does."""
    config = current()
    simulation = _simulated(config)
    place = config.flower_place
    assert place is not None, "who names no port has no such part"

    def address() -> Address:
        # After a failure the port is the one that nodes know by now.
        return bound() or place.address

    http = FlowerService(
        current=current,
        state=state,
        credentials=credentials,
        address=address,
        simulation=simulation,
        observers=observers,
    )
    apps = Launcher(
        state=state,
        address=address,
        certificate=_certificate(config),
        most=config.max_server_apps,
    )
    grace = config.grace + _DRAIN
    return Group(
        name="flower",
        strategy=Strategy.REST_FOR_ONE,
        children=[
            Child(name="http", serve=http, restart=Restart.ON_FAILURE, grace=grace),
            Child(name="apps", serve=apps, restart=Restart.ON_FAILURE, grace=grace),
        ],
    )


def _simulated(config: SuperLinkConfig) -> pb.SimulationConfig | None:
    """Say how runs are simulated, as Flower's own SuperLink does by default; None: they are not."""
    if not config.simulation:
        return None
    return pb.SimulationConfig(
        num_supernodes=config.num_supernodes or 2,
        client_resources_num_cpus=2,
        client_resources_num_gpus=0.0,
        backend="ray",
        verbose=False,
        init_args_logging_level="WARNING",
        init_args_log_to_driver=True,
    )


def _certificate(config: SuperLinkConfig) -> Path | None:
    """Give the file that programs here know the HTTP port by; None where it speaks no TLS."""
    if config.rest_files is None:
        return None
    return config.certificates[0] if config.certificates and config.tls else config.rest_files[0]


@attrs.frozen(kw_only=True)
class FlowerService:
    """Serves nodes, runs and operators. Each life of the service makes its APIs anew."""

    current: Callable[[], SuperLinkConfig]
    state: MessageState
    credentials: Credentials | None
    address: Callable[[], Address]
    """Where to listen, asked for at each start."""
    simulation: pb.SimulationConfig | None
    """How runs are simulated; None: they are not. It changes while this serves."""
    observers: Sequence[CallObserver]

    async def __call__(
        self, *, stopping: trio.Event, task_status: trio.TaskStatus[Address]
    ) -> None:
        """Serve until `stopping`; `task_status` gets the address that was bound."""
        config = self.current()
        apis = {
            "fleet": messages_api(
                self.state,
                readmit=config.readmit,
                self_registration=not config.enable_supernode_auth,
                simulated=config.simulation,
            ),
            "runtime": runtime_api(self.state, hold=lambda: self.current().driver_hold),
            "control": for_this_machine_only(control_api(self.state, check_key, self.simulation)),
        }
        options = HttpOptions.of(config, max_connections=fitting(config.max_connections))
        site = protobuf_site(
            {name: observed(api, self.observers) for name, api in apis.items()},
            options,
            not_offered=_NOT_OFFERED,
            max_calls=lambda: self.current().max_calls,
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
