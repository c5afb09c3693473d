"""A SuperLink as a Trio task tree.

    superlink                rest for one: each stands on what was started before it
    ├── state                opens first, closes last
    ├── messages             if Flower 1.23 and later is served: its nodes, runs and messages
    ├── traces               where OpenTelemetry's variables ask for them
    ├── certificates         with TLS: says in time when one expires
    └── apis                 one for one: each restarts alone
        ├── admin            if there is an address for it: health, metrics, a page
        ├── driver
        ├── fleet            or nodes that are simulated
        ├── flower           if there is a port for it: nodes, runs and `flwr` of Flower 1.35 on
        │   ├── http
        │   └── apps         a process for each run
        ├── control          `flwr`, where it has a port of its own
        └── control-grpc     `flwr` of 1.21 to 1.36, if there is an address for it

The asyncio loop that gRPC needs is no part of the tree: it is opened around it, so that no
gRPC server can outlive it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs
import trio

from superlink_trio.admin import Flower, Watching, traces
from superlink_trio.config import Apis, ConfigError, SuperLinkConfig
from superlink_trio.config.changes import Current
from superlink_trio.config.checks import raise_all
from superlink_trio.fleet import Presence, SuperNodes
from superlink_trio.handle import (
    CONTROL_GRPC,
    DRIVER,
    FLEET,
    SuperLink,
    state_limits,
    stored_size,
)
from superlink_trio.leaves import Leaves, Sockets, Worker
from superlink_trio.logs.events import EventLog
from superlink_trio.rounds import Rounds
from superlink_trio.state import State, open_state
from superlink_trio.state.messages import messages_beside
from superlink_trio.supervision import Control, Event, Group, Strategy, shielded_stop, supervise
from superlink_trio.transport.grpc import GrpcService, open_loop

if TYPE_CHECKING:
    from superlink_trio.credentials import Credentials
    from superlink_trio.simulation.progress import Display

Observer = Callable[[Event], None]

_NO_SOCKETS: Sockets = MappingProxyType({})

_log = logging.getLogger(__name__)

_GROUPS = frozenset({"superlink", "superlink/apis", "superlink/apis/flower"})


def _tree(leaves: Leaves) -> Group:
    return Group(
        name="superlink",
        strategy=Strategy.REST_FOR_ONE,
        children=[
            *leaves.stores(),
            *leaves.traces(),
            *leaves.certificates(),
            Group(name="apis", strategy=Strategy.ONE_FOR_ONE, children=list(leaves.apis())),
        ],
    )


async def run_superlink(
    config: SuperLinkConfig,
    *,
    control: Control | None = None,
    observer: Observer | None = None,
    sockets: Sockets = _NO_SOCKETS,
    display: Display | None = None,
    task_status: trio.TaskStatus[SuperLink] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the Driver API and the Fleet API, or simulated nodes, until stopped.

    `task_status.started` gets a `SuperLink` when both listen; cancelling the scope around this
    call is the same graceful stop as its `stop()`. `control` stops it as well, before there is a
    `SuperLink` too. `observer` is called with every event of the supervision tree. `display` shows
    how a simulation gets on; by default the log does. `sockets` listen already at the address that
    an option says, by its name: "rest_fleet_api_address" or "admin_address". No signal is touched.

    Raises ConfigErrors with every fault of the config before anything is started, and an
    ExceptionGroup of everything that failed for good; an address that cannot be listened on
    is an OSError in it.
    """
    await _run(Apis.BOTH, config, control, observer, sockets, task_status, display)


async def run_driver_api(
    config: SuperLinkConfig,
    *,
    control: Control | None = None,
    observer: Observer | None = None,
    sockets: Sockets = _NO_SOCKETS,
    task_status: trio.TaskStatus[SuperLink] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the Driver API alone, over a database it shares; otherwise like `run_superlink`."""
    await _run(Apis.DRIVER, config, control, observer, sockets, task_status)


async def run_fleet_api(
    config: SuperLinkConfig,
    *,
    control: Control | None = None,
    observer: Observer | None = None,
    sockets: Sockets = _NO_SOCKETS,
    display: Display | None = None,
    task_status: trio.TaskStatus[SuperLink] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the Fleet API alone, over a database it shares; otherwise like `run_superlink`."""
    await _run(Apis.FLEET, config, control, observer, sockets, task_status, display)


async def run_worker(
    apis: Apis,
    config: SuperLinkConfig,
    *,
    worker: Worker,
    control: Control | None = None,
    observer: Observer | None = None,
    sockets: Sockets = _NO_SOCKETS,
    task_status: trio.TaskStatus[SuperLink] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run some APIs as one of several processes that serve together.

    Their gRPC ports are shared, and no admin surface is served: where the config has an address
    for one, the process that serves it asks. Otherwise like `run_superlink`.
    """
    await _run(apis, config, control, observer, sockets, task_status, worker=worker)


async def _run(
    apis: Apis,
    config: SuperLinkConfig,
    control: Control | None,
    observer: Observer | None,
    sockets: Sockets,
    task_status: trio.TaskStatus[SuperLink],
    display: Display | None = None,
    worker: Worker | None = None,
) -> None:
    config.check(apis)
    if config.workers > 1:
        fault = f"{config.workers} are processes of the program superlink-trio: here it has to be 1"
        raise_all([ConfigError(fault, "workers")])
    for notice in config.notices(apis):
        _log.info(notice)
    credentials = await _credentials(config, apis)
    async with shielded_stop(control) as control, open_loop() as loop:
        state = open_state(config.database, limits=state_limits(config, stored_size(config)))
        current = Current(config, apis)
        link = SuperLink(control, current, credentials, state)
        watching = await _watching(config, apis, control)
        log_event = EventLog(_GROUPS)

        def observe(event: Event) -> None:
            link.observe(event)
            log_event(event)
            watching.note(event)
            if observer is not None:
                observer(event)

        certificates = None if credentials is None else credentials.grpc
        grpc = GrpcService(
            current=current,
            loop=loop,
            certificates=certificates,
            health=watching.health,
            shared=worker is not None,
        )
        flower = None
        if config.port is not None and apis is Apis.BOTH:
            flower = _flower(state)
        presence = Presence(lambda: current().hold, most=lambda: state.limits.nodes)
        rounds = Rounds()
        if worker is not None:
            _share(worker, presence if Apis.FLEET in apis else None, rounds, flower)
        leaves = Leaves(
            served=apis,
            current=current,
            credentials=credentials,
            state=state,
            grpc=grpc,
            link=link,
            watching=watching,
            presence=presence,
            rounds=rounds,
            sockets=sockets,
            display=display,
            flower=flower,
            worker=worker,
        )
        try:
            await supervise(
                _tree(leaves),
                control=control,
                observer=observe,
                task_status=_Ready(link, task_status),
            )
        finally:
            link.ended()


def _share(
    worker: Worker, presence: Presence | None, rounds: Rounds, flower: Flower | None
) -> None:
    worker.share("rounds", rounds)
    if presence is not None:
        worker.share("nodes", presence.attendance)
    if flower is not None:
        worker.share("supernodes", flower.nodes.attendance)
        worker.share("message rounds", flower.rounds)


def _flower(state: State) -> Flower:
    messages = messages_beside(state)
    return Flower(
        state=messages,
        nodes=SuperNodes(
            most=lambda: state.limits.nodes,
            runs=messages.live_runs,
            clock=state.now,
            known=messages.node,
        ),
        rounds=Rounds(work="message", runs=messages.live_runs),
    )


async def _watching(config: SuperLinkConfig, apis: Apis, control: Control) -> Watching:
    services = {"flwr.proto.Driver": DRIVER} if Apis.DRIVER in apis else {}
    if Apis.FLEET in apis and config.fleet_api_type.startswith("grpc"):
        services |= dict.fromkeys(("flwr.proto.Fleet", "flwr.proto.GrpcAdapter"), FLEET)
    if apis is Apis.BOTH and config.control_grpc_place is not None:
        services |= {"flwr.proto.Control": CONTROL_GRPC}
    spans = None
    if traces.wanted():
        spans = await trio.to_thread.run_sync(traces.configured, control, config.grace)
    return Watching(services=services, counts=config.admin_address is not None, traces=spans)


async def _credentials(config: SuperLinkConfig, apis: Apis) -> Credentials | None:
    https = config.over_http and config.rest_files is not None
    secrets = config.superexec_auth_secret_file or config.control_token_file
    if not (config.tls or https or secrets):
        return None
    # What reads keys takes a tenth of a second to import.
    from superlink_trio.credentials import load

    return await trio.to_thread.run_sync(load, config, apis)


@attrs.frozen
class _Ready:
    """Passes on that the tree is ready, with the handle that its starter waits for."""

    link: SuperLink
    task_status: trio.TaskStatus[SuperLink]

    def started(self, value: None = None) -> None:
        self.task_status.started(self.link)
