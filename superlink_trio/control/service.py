"""Today's Flower as a part of the tree.

flower          rest for one
├── http        nodes, the processes of runs, and the command line `flwr`, on one port
└── apps        a process for each run; or, where SuperExecs start them, their end
control         the command line alone, where it has a port of its own
control-grpc    the command line of 1.21 to 1.36
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from superlink_trio.config import Address, SuperLinkConfig
from superlink_trio.control.api import control_api
from superlink_trio.control.gate import gated
from superlink_trio.control.http import HttpService
from superlink_trio.control.older import OlderControl
from superlink_trio.fleet import SuperNodes
from superlink_trio.fleet.messages_api import messages_api
from superlink_trio.fleet.sessions import Sessions
from superlink_trio.fleet.signatures import check_key
from superlink_trio.processes.handover import Handover
from superlink_trio.rounds import Rounds
from superlink_trio.rpc import Api, CallObserver, Status
from superlink_trio.runtime import (
    Acquiring,
    Launcher,
    NoSuperExecs,
    Signatures,
    SuperExecs,
    TakenRuns,
    runtime_api,
)
from superlink_trio.state.messages import MessageState
from superlink_trio.supervision import Child, Group, Restart, Service, Strategy
from superlink_trio.transport.grpc import GrpcService
from superlink_trio.wire import messages_pb2 as pb

if TYPE_CHECKING:
    from superlink_trio.config.places import Place
    from superlink_trio.credentials import ControlTokens, Credentials

# What listens, by its path below the APIs.
_HTTP, _CONTROL, _CONTROL_GRPC = "flower/http", "control", "control-grpc"

# What a server needs beyond the grace of its calls: to cancel what is left and see it end.
_DRAIN = 0.2


@attrs.frozen(kw_only=True)
class TodaysFlower:
    """What the parts of the tree that serve today's Flower are made of."""

    current: Callable[[], SuperLinkConfig]
    state: MessageState
    credentials: Credentials | None
    nodes: SuperNodes
    rounds: Rounds
    grpc: GrpcService
    bound: Callable[[str], Address | None]
    """Where a part listens, by its path, once it does."""
    observers: Callable[[str, str], Sequence[CallObserver]]
    """Who watches the calls of a part, by what carries them and by its path."""
    sockets: Mapping[str, Sequence[socket.socket]]
    """What listens at addresses already, by the options that say them."""
    starts_runs: bool
    """Whether this process starts those of runs, where no SuperExec does."""
    handover: Handover | None
    """What others leave to this process of that, and this one to others."""
    cookies: bytes = attrs.field(repr=False)
    """The secret with which cookies of nodes are made."""
    simulation: pb.SimulationConfig | None = attrs.field(init=False)
    """How runs are simulated; None: they are not. It changes while this serves."""

    @simulation.default
    def _simulated(self) -> pb.SimulationConfig | None:
        return _simulation_of(self.current())

    def parts(self) -> Iterator[Child | Group]:
        """Describe the parts of the tree."""
        config = self.current()
        assert config.flower_place is not None, "who names no port has no such part"
        yield self._flower(config.flower_place)
        if config.control_place is not None:
            yield self._child(_CONTROL, self._control(config.control_place))
        if config.control_grpc_place is not None:
            yield self._child(_CONTROL_GRPC, self._control_grpc(config.control_grpc_place))

    def _child(self, name: str, serve: Service) -> Child:
        grace = self.current().grace + _DRAIN
        return Child(name=name, serve=serve, restart=Restart.ON_FAILURE, grace=grace)

    def _address(self, path: str, place: Place) -> Callable[[], Address]:
        # After a failure the port is the one that clients know by now.
        return lambda: self.bound(path) or place.address

    def _flower(self, place: Place) -> Group:
        address = self._address(_HTTP, place)
        superexecs = self._superexecs()
        http = HttpService(
            current=self.current,
            apis=lambda config: self._flower_apis(config, superexecs),
            credentials=self.credentials,
            address=address,
            elsewhere=self._not_beside_nodes,
            observers=self.observers("http", _HTTP),
            needed_by="the APIs of Flower 1.35 and later",
            beside=[self.nodes.report, self.rounds.report],
            sockets=self.sockets.get(place.field, ()),
        )
        return Group(
            name="flower",
            strategy=Strategy.REST_FOR_ONE,
            children=[self._child("http", http), *self._apps(address)],
        )

    def _apps(self, address: Callable[[], Address]) -> Iterator[Child]:
        config = self.current()
        if config.isolation == "process":
            yield self._child("apps", TakenRuns(state=self.state, address=address))
        elif self.starts_runs:
            launcher = Launcher(
                state=self.state,
                address=address,
                certificate=_certificate(config),
                most=config.max_server_apps,
                handover=self.handover,
            )
            yield self._child("apps", launcher)

    def _superexecs(self) -> Acquiring:
        if self.current().isolation == "subprocess":
            return NoSuperExecs()
        secret = None if self.credentials is None else self.credentials.superexecs
        return SuperExecs(
            state=self.state,
            hold=lambda: self.current().hold,
            signatures=None if secret is None else Signatures(secret),
        )

    def _flower_apis(self, config: SuperLinkConfig, superexecs: Acquiring) -> Mapping[str, Api]:
        apis = {
            "fleet": messages_api(
                self.state,
                hold=lambda: self.current().message_hold,
                readmit=config.readmit,
                self_registration=not config.enable_supernode_auth,
                simulated=self.simulation is not None,
                verify=Sessions(self.cookies, secure=config.rest_files is not None).verify,
                nodes=self.nodes,
            ),
            "runtime": runtime_api(
                self.state,
                hold=lambda: self.current().driver_hold,
                superexecs=superexecs,
                rounds=self.rounds,
            ),
        }
        return apis if config.control_place is not None else {**apis, **self._control_apis(config)}

    def _control_apis(self, _: SuperLinkConfig) -> Mapping[str, Api]:
        api = control_api(self.state, check_key, self.simulation)
        return {"control": gated(api, self._tokens, denied=Status.UNAUTHENTICATED)}

    @property
    def _tokens(self) -> ControlTokens | None:
        return None if self.credentials is None else self.credentials.control

    def _control(self, place: Place) -> HttpService:
        return HttpService(
            current=self.current,
            apis=self._control_apis,
            credentials=self.credentials,
            address=self._address(_CONTROL, place),
            elsewhere=self._not_beside_flwr,
            observers=self.observers("http", _CONTROL),
            needed_by="the Control API",
            sockets=self.sockets.get(place.field, ()),
        )

    def _control_grpc(self, place: Place) -> OlderControl:
        return OlderControl(
            current=self.current,
            state=self.state,
            simulation=self.simulation,
            tokens=self._tokens,
            grpc=self.grpc,
            address=self._address(_CONTROL_GRPC, place),
            observers=self.observers("grpc", _CONTROL_GRPC),
        )

    def _not_beside_nodes(self, api: str) -> str | None:
        if api == "control" and self.current().control_place is not None:
            return f"flwr is served on a port of its own: {self.bound(_CONTROL)}."
        return None

    def _not_beside_flwr(self, api: str) -> str | None:
        if api in ("fleet", "runtime"):
            return f"Only flwr is served here: nodes connect to {self.bound(_HTTP)}."
        return None


def _simulation_of(config: SuperLinkConfig) -> pb.SimulationConfig | None:
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
