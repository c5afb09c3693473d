"""A SuperLink as a Trio task tree.

    superlink                rest for one: each stands on what was started before it
    ├── state                opens first, closes last
    ├── messages             if Flower 1.23 and later is served: its nodes, runs and messages
    ├── certificates         with TLS: says in time when one expires
    └── apis                 one for one: each restarts alone
        ├── admin            if there is an address for it: health, metrics, a page
        ├── driver
        ├── fleet            or nodes that are simulated
        └── flower           if there is a port for it: nodes, runs and `flwr` of Flower 1.35 on
            ├── http
            └── apps         a process for each run

The asyncio loop that gRPC needs is no part of the tree: it is opened around it, so that no
gRPC server can outlive it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import attrs
import trio

from superlink_trio.admin import AdminService, History, Overview
from superlink_trio.config import Address, Apis, SuperLinkConfig
from superlink_trio.driver import DriverService
from superlink_trio.fleet import FleetService
from superlink_trio.logs.events import EventLog
from superlink_trio.rpc import CallLog
from superlink_trio.state import State, StateLimits, open_state, usual_room
from superlink_trio.state.messages import MessageState, messages_beside
from superlink_trio.supervision import (
    Child,
    Control,
    Event,
    EventKind,
    Group,
    Restart,
    Service,
    Strategy,
    shielded_stop,
    supervise,
)
from superlink_trio.transport.grpc import GrpcService, open_loop

if TYPE_CHECKING:
    from superlink_trio.credentials import Credentials
    from superlink_trio.simulation.progress import Display

Observer = Callable[[Event], None]

_log = logging.getLogger(__name__)

_ADMIN, _DRIVER, _FLEET = (f"superlink/apis/{name}" for name in ("admin", "driver", "fleet"))
_HTTP = "superlink/apis/flower/http"
_GROUPS = frozenset({"superlink", "superlink/apis", "superlink/apis/flower"})

# What was acknowledged is kept already when the state is asked to stop: it only has to close.
_STATE_GRACE = 0.25

# What a server needs beyond the grace of its calls: to cancel what is left and see it end.
_DRAIN = 0.2

_OBSERVERS = (CallLog(),)

# The Driver API's share of the files that the process may open, where nodes connect to it too.
# Drivers are few.
_DRIVERS_SHARE = 1 / 8


class SuperLink:
    """A running SuperLink: where it listens, how it is doing, and how to stop it."""

    def __init__(self, control: Control, credentials: Credentials | None) -> None:
        self._control = control
        self._credentials = credentials
        self._ended = trio.Event()
        self._states: dict[str, EventKind] = {}
        self._addresses: dict[str, Address] = {}

    @property
    def driver_address(self) -> Address | None:
        """Where the Driver API listens, by the port really bound; None if it does not run here."""
        return self._addresses.get(_DRIVER)

    @property
    def fleet_address(self) -> Address | None:
        """Where the Fleet API listens, by the port really bound; None if it does not run here.

        A simulation has no port either.
        """
        return self._addresses.get(_FLEET)

    @property
    def admin_address(self) -> Address | None:
        """Where operators find health, metrics and a page; None if that is not served."""
        return self._addresses.get(_ADMIN)

    @property
    def flower_address(self) -> Address | None:
        """Where Flower 1.35 and later is served over HTTP; None if it is not."""
        return self._addresses.get(_HTTP)

    def status(self) -> Mapping[str, EventKind]:
        """Give the last event of each part, by its path in the tree (`superlink/apis/fleet`)."""
        return dict(self._states)

    def addresses(self) -> Mapping[str, Address]:
        """Give the address of every API that listens, by its path in the tree."""
        return dict(self._addresses)

    async def stop(self) -> None:
        """Stop gracefully, and return when everything has ended.

        New calls are refused, held ones answered, those in flight have the config's `grace`.
        """
        self._control.stop()
        await self._ended.wait()

    def cancel(self) -> None:
        """Stop now: in the same order, but without any grace."""
        self._control.cancel()

    async def reload(self) -> None:
        """Read certificates and the list of nodes' keys again, without dropping connections.

        What is not sound is not used: the log says why, and things stay as they were. The calls
        of a node whose key is listed no more end at once.
        """
        if self._credentials is None:
            _log.info("There are no keys or certificates to read again")
        else:
            await self._credentials.reload()

    def _observe(self, event: Event) -> None:
        self._states[event.path] = event.kind
        if isinstance(event.value, Address):
            self._addresses[event.path] = event.value


async def run_superlink(
    config: SuperLinkConfig,
    *,
    control: Control | None = None,
    observer: Observer | None = None,
    display: Display | None = None,
    task_status: trio.TaskStatus[SuperLink] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the Driver API and the Fleet API, or simulated nodes, until stopped.

    `task_status.started` gets a `SuperLink` when both listen; cancelling the scope around this
    call is the same graceful stop as its `stop()`. `control` stops it as well, before there is a
    `SuperLink` too. `observer` is called with every event of the supervision tree. `display` shows
    how a simulation gets on; by default the log does. No signal is touched.

    Raises ConfigErrors with every fault of the config before anything is started, and an
    ExceptionGroup of everything that failed for good; an address that cannot be listened on
    is an OSError in it.
    """
    await _run(Apis.BOTH, config, control, observer, task_status, display)


async def run_driver_api(
    config: SuperLinkConfig,
    *,
    control: Control | None = None,
    observer: Observer | None = None,
    task_status: trio.TaskStatus[SuperLink] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the Driver API alone, over a database it shares; otherwise like `run_superlink`."""
    await _run(Apis.DRIVER, config, control, observer, task_status)


async def run_fleet_api(
    config: SuperLinkConfig,
    *,
    control: Control | None = None,
    observer: Observer | None = None,
    display: Display | None = None,
    task_status: trio.TaskStatus[SuperLink] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the Fleet API alone, over a database it shares; otherwise like `run_superlink`."""
    await _run(Apis.FLEET, config, control, observer, task_status, display)


async def _run(
    apis: Apis,
    config: SuperLinkConfig,
    control: Control | None,
    observer: Observer | None,
    task_status: trio.TaskStatus[SuperLink],
    display: Display | None = None,
) -> None:
    config.check(apis)
    for notice in config.notices(apis):
        _log.info(notice)
    credentials = await _credentials(config, apis)
    async with shielded_stop(control) as control, open_loop() as loop:
        link = SuperLink(control, credentials)
        log_event, history = EventLog(_GROUPS), History()

        def observe(event: Event) -> None:
            link._observe(event)
            log_event(event)
            history.note(event)
            if observer is not None:
                observer(event)

        certificates = None if credentials is None else credentials.grpc
        grpc = GrpcService(config=config, loop=loop, certificates=certificates)
        state = _state(config)
        messages = None
        if config.port is not None and apis is Apis.BOTH:
            messages = messages_beside(state)
        leaves = _Leaves(apis, config, credentials, state, grpc, link, history, display, messages)
        try:
            await supervise(
                _tree(leaves),
                control=control,
                observer=observe,
                task_status=_Ready(link, task_status),
            )
        finally:
            link._ended.set()


async def _credentials(config: SuperLinkConfig, apis: Apis) -> Credentials | None:
    if not config.tls and (not config.over_http or config.rest_files is None):
        return None
    # What reads keys takes a tenth of a second to import.
    from superlink_trio.credentials import load

    return await trio.to_thread.run_sync(load, config, apis)


def _state(config: SuperLinkConfig) -> State:
    stored_size = config.max_stored_size
    if stored_size is None:
        room = usual_room(config.database)
        stored_size = room.size
        _log.info(
            "Payloads and tasks may take %.1f GiB, %s (--max-stored-size)",
            *(stored_size / 2**30, room.of),
            extra={"max_stored_size": stored_size},
        )
    limits = StateLimits(
        stored_size=stored_size,
        nodes=config.max_nodes,
        tasks_per_node=config.max_tasks_per_node,
    )
    return open_state(config.database, limits=limits)


@attrs.frozen
class _Ready:
    """Passes on that the tree is ready, with the handle that its starter waits for."""

    link: SuperLink
    task_status: trio.TaskStatus[SuperLink]

    def started(self, value: None = None) -> None:
        self.task_status.started(self.link)


def _tree(leaves: _Leaves) -> Group:
    return Group(
        name="superlink",
        strategy=Strategy.REST_FOR_ONE,
        children=[
            # What is in memory is gone when its store fails: starting it again would hide that.
            Child(name="state", serve=leaves.state.serve, grace=_STATE_GRACE),
            *leaves.messages_store(),
            *leaves.certificates(),
            Group(name="apis", strategy=Strategy.ONE_FOR_ONE, children=list(leaves.apis())),
        ],
    )


@attrs.frozen
class _Leaves:
    """The leaves of the tree."""

    served: Apis
    config: SuperLinkConfig
    credentials: Credentials | None
    state: State
    grpc: GrpcService
    link: SuperLink
    history: History
    display: Display | None

    messages: MessageState | None

    def messages_store(self) -> Iterator[Child]:
        if self.messages is not None:
            yield Child(name="messages", serve=self.messages.serve, grace=_STATE_GRACE)

    def certificates(self) -> Iterator[Child]:
        if self.credentials is not None:
            for name, certificates in self.credentials.certificates.items():
                yield Child(name=f"certificates-{name.lower()}", serve=certificates.serve)

    def apis(self) -> Iterator[Child | Group]:
        grace = self.config.grace
        if self.config.admin_address is not None:
            yield _api("admin", self._admin(), _DRAIN)
        if Apis.DRIVER in self.served:
            yield _api("driver", self._driver(), grace + _DRAIN)
        if Apis.FLEET in self.served:
            if self.config.fleet_place is not None:
                yield _api("fleet", self._fleet(), grace + _DRAIN)
            else:
                # Apps do not know of the grace: the supervisor ends them.
                yield _api("fleet", self._simulation(), grace)
        if self.messages is not None:
            yield self._flower(self.messages)

    def _admin(self) -> Service:
        overview = Overview(history=self.history, addresses=self.link.addresses)
        return AdminService(config=self.config, overview=overview)

    def _flower(self, messages: MessageState) -> Group:
        # What a SuperLink of older releases need not have.
        from superlink_trio.control.service import flower_group

        return flower_group(
            config=self.config,
            state=messages,
            credentials=self.credentials,
            bound=lambda: self.link.addresses().get(_HTTP),
            observers=_OBSERVERS,
        )

    @property
    def _drivers_share(self) -> float:
        both = self.served is Apis.BOTH and self.config.fleet_place is not None
        return _DRIVERS_SHARE if both else 1.0

    def _driver(self) -> Service:
        return DriverService(
            config=self.config,
            state=self.state,
            grpc=self.grpc,
            # After a failure the port is the one that clients know by now, even if any would have
            # done.
            address=lambda: self.link.driver_address or self.config.driver_place.address,
            share=self._drivers_share,
            observers=_OBSERVERS,
        )

    def _fleet(self) -> Service:
        place = self.config.fleet_place
        assert place is not None, "a simulation has no Fleet API"
        return FleetService(
            config=self.config,
            state=self.state,
            credentials=self.credentials,
            grpc=self.grpc,
            address=lambda: self.link.fleet_address or place.address,
            share=1 - self._drivers_share if self._drivers_share < 1 else 1.0,
            observers=_OBSERVERS,
            messages=self.messages,
        )

    def _simulation(self) -> Service:
        # What a SuperLink of real nodes need not have.
        from superlink_trio.simulation.service import SimulationService

        return SimulationService.of(self.config, self.state, self.display)


def _api(name: str, serve: Service, grace: float) -> Child:
    return Child(name=name, serve=serve, restart=Restart.ON_FAILURE, grace=grace)
