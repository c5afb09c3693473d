"""A SuperLink as a Trio task tree.

    superlink                rest for one: each stands on what was started before it
    ├── state                opens first, closes last
    ├── certificates         with TLS: says in time when one expires
    └── apis                 one for one: each restarts alone
        ├── driver
        └── fleet            or nodes that are simulated

The asyncio loop that gRPC needs is no part of the tree: it is opened around it, so that no
gRPC server can outlive it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import attrs
import trio

from superlink_trio.config import Apis, Backend, CannotStart, ConfigError, SuperLinkConfig
from superlink_trio.config.address import Address
from superlink_trio.driver import Progress, driver_api
from superlink_trio.fleet import adapter_api, fleet_api, refusing_adapter_api
from superlink_trio.logs.events import EventLog
from superlink_trio.rpc import Api
from superlink_trio.state import State, StateLimits, open_state, usual_room
from superlink_trio.state.room import room_in_memory
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
from superlink_trio.transport.grpc import (
    GrpcOptions,
    TrioEventLoop,
    open_loop,
    serve_grpc,
    server_credentials,
)
from superlink_trio.transport.listening import fitting

if TYPE_CHECKING:
    from superlink_trio.credentials import Credentials
    from superlink_trio.simulation.backend import OpenBackend
    from superlink_trio.simulation.progress import Display

Observer = Callable[[Event], None]

_log = logging.getLogger(__name__)

_DRIVER, _FLEET = "superlink/apis/driver", "superlink/apis/fleet"
_GROUPS = frozenset({"superlink", "superlink/apis"})

# What was acknowledged is kept already when the state is asked to stop: it only has to close.
_STATE_GRACE = 0.25

# What a server needs beyond the grace of its calls: to cancel what is left and see it end.
_DRAIN = 0.2

# The Driver API's share of the files that the process may open, where nodes connect to it too.
# Drivers are few.
_DRIVERS_SHARE = 1 / 8

# Where the backends of a simulation are: a module, and what opens one.
_BACKENDS: Mapping[Backend, tuple[str, str]] = {
    "process": ("process", "open_process_backend"),
    "ray": ("ray.backend", "open_ray_backend"),
}


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

    def status(self) -> Mapping[str, EventKind]:
        """Give the last event of each part, by its path in the tree (`superlink/apis/fleet`)."""
        return dict(self._states)

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
        log_event = EventLog(_GROUPS)

        def observe(event: Event) -> None:
            link._observe(event)
            log_event(event)
            if observer is not None:
                observer(event)

        state = _state(config)
        try:
            await supervise(
                _tree(_Services(apis, config, credentials, state, loop, link, display)),
                control=control,
                observer=observe,
                task_status=_Ready(link, task_status),
            )
        finally:
            link._ended.set()


async def _credentials(config: SuperLinkConfig, apis: Apis) -> Credentials | None:
    if not config.tls and (config.fleet_api_type != "rest" or config.rest_files is None):
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


def _tree(services: _Services) -> Group:
    return Group(
        name="superlink",
        strategy=Strategy.REST_FOR_ONE,
        children=[
            # What is in memory is gone when its store fails: starting it again would hide that.
            Child(name="state", serve=services.state.serve, grace=_STATE_GRACE),
            *services.expiries(),
            Group(
                name="apis",
                strategy=Strategy.ONE_FOR_ONE,
                children=[
                    Child(name=name, serve=serve, restart=Restart.ON_FAILURE, grace=grace)
                    for name, serve, grace in services.apis()
                ],
            ),
        ],
    )


@attrs.frozen
class _Services:
    """The leaves of the tree. Each life of a service makes its API anew."""

    served: Apis
    config: SuperLinkConfig
    credentials: Credentials | None
    state: State
    loop: TrioEventLoop
    link: SuperLink
    display: Display | None

    def expiries(self) -> Iterator[Child]:
        if self.credentials is not None:
            for name, certificates in self.credentials.certificates.items():
                yield Child(name=f"certificates-{name.lower()}", serve=certificates.serve)

    async def driver(self, *, stopping: trio.Event, task_status: trio.TaskStatus[Address]) -> None:
        progress = Progress()
        api = driver_api(
            self.state,
            hold=self.config.driver_hold,
            message_limit=self.config.max_message_size,
            progress=progress,
        )
        # After a failure the port is the one that clients know by now, even if any would have done.
        address = self.link.driver_address or self.config.driver_place.address
        async with trio.open_nursery() as nursery:
            nursery.start_soon(progress.tell)
            with _named("the Driver API"):
                await self._serve(
                    [api],
                    address,
                    stopping,
                    task_status,
                    connections=self._connections(_DRIVERS_SHARE),
                    clients_need_certificates=self.config.driver_client_ca is not None,
                )
            nursery.cancel_scope.cancel()

    def apis(self) -> Iterator[tuple[str, Service, float]]:
        """Give the name of each, what serves it, and the seconds that it has to stop."""
        grace = self.config.grace
        if Apis.DRIVER in self.served:
            yield "driver", self.driver, grace + _DRAIN
        if Apis.FLEET in self.served and self._simulates:
            # Apps do not know of the grace: the supervisor ends them.
            yield "fleet", self._simulation(), grace
        elif Apis.FLEET in self.served:
            yield "fleet", self.fleet, grace + _DRAIN

    @property
    def _simulates(self) -> bool:
        return self.config.fleet_api_type == "vce"

    def _connections(self, share: float) -> int:
        """How many connections an API may have, where another one has those that are left."""
        alone = self.served is not Apis.BOTH or self._simulates
        return fitting(self.config.max_connections, 1.0 if alone else share)

    def _simulation(self) -> Service:
        # What a SuperLink of real nodes need not have.
        from superlink_trio.simulation.backend import App, AppNotLoaded, BackendDied
        from superlink_trio.simulation.engine import Simulation, UnusableSettings
        from superlink_trio.simulation.progress import log_progress

        config = self.config
        assert config.client_app is not None, "it was checked"
        assert config.num_supernodes is not None, "it was checked"
        simulation = Simulation(
            self.state,
            _open_backend(config.backend),
            App(reference=config.client_app, directory=config.app_dir.absolute()),
            num_nodes=config.num_supernodes,
            backend_name=config.backend,
            backend_config=config.backend_config,
            message_limit=config.max_message_size,
            # Half of what `--max-stored-size` is where it is not given, and the state in memory.
            context_limit=room_in_memory().size // 2,
            display=self.display or log_progress,
        )

        async def simulate(*, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
            try:
                await simulation.serve(stopping=stopping, task_status=task_status)
            except UnusableSettings as error:
                raise ConfigError(str(error), "backend_config") from error
            except AppNotLoaded as error:
                raise _cannot_load(str(config.client_app), str(error).strip()) from None
            except BackendDied as error:
                if simulation.was_ready:
                    raise
                raise CannotStart(f"the {config.backend} backend ended: {error}") from error

        return simulate

    async def fleet(self, *, stopping: trio.Event, task_status: trio.TaskStatus[Address]) -> None:
        apis = self._fleet_apis()
        place = self.config.fleet_place
        assert place is not None, "a simulation has no Fleet API"
        address = self.link.fleet_address or place.address
        serve = self._serve_http if self.config.fleet_api_type == "rest" else self._serve
        connections = self._connections(1 - _DRIVERS_SHARE)
        with _named("the Fleet API"):
            await serve(apis, address, stopping, task_status, connections=connections)

    def _fleet_apis(self) -> Sequence[Api]:
        readmit = self.config.readmit
        keys = None if self.credentials is None else self.credentials.nodes
        api = fleet_api(
            self.state,
            hold=self.config.hold,
            # Behind authentication a node is known by its key, and re-admitted by that.
            readmit=readmit and keys is None,
            message_limit=self.config.max_message_size,
            refusals_are_final=self.config.fleet_api_type == "rest",
        )
        if self.config.fleet_api_type == "rest":
            return [api]
        if keys is None:
            return [api, adapter_api(api)]
        from superlink_trio.fleet.authentication import authenticated

        reason = "GrpcAdapter is not served here, where nodes have to authenticate: use grpc-rere"
        return [
            authenticated(api, self.state, keys, readmit=readmit),
            refusing_adapter_api(reason),
        ]

    async def _serve_http(
        self,
        apis: Sequence[Api],
        address: Address,
        stopping: trio.Event,
        task_status: trio.TaskStatus[Address],
        *,
        connections: int,
    ) -> None:
        # Who serves gRPC need not load it.
        from superlink_trio.transport.http import HttpOptions, serve_http

        certificates = None if self.credentials is None else self.credentials.rest
        [api] = apis
        await serve_http(
            api,
            address,
            tls=None if certificates is None else certificates.context,
            options=HttpOptions.of(self.config, max_connections=connections),
            stopping=stopping,
            task_status=task_status,
        )

    async def _serve(
        self,
        apis: Sequence[Api],
        address: Address,
        stopping: trio.Event,
        task_status: trio.TaskStatus[Address],
        *,
        connections: int,
        clients_need_certificates: bool = False,
    ) -> None:
        credentials = None
        if self.credentials is not None and self.credentials.grpc is not None:
            credentials = server_credentials(
                self.credentials.grpc, clients_need_certificates=clients_need_certificates
            )
        await serve_grpc(
            apis,
            address,
            loop=self.loop,
            credentials=credentials,
            options=GrpcOptions.of(self.config, max_connections=connections),
            stopping=stopping,
            task_status=task_status,
        )


def _open_backend(backend: Backend) -> OpenBackend:
    # Neither is needed by the other, and Ray is an extra.
    module, name = _BACKENDS[backend]
    opens: OpenBackend = getattr(import_module(f"superlink_trio.simulation.{module}"), name)
    return opens


def _cannot_load(app: str, traceback: str) -> CannotStart:
    before, _, why = traceback.rpartition("\n")
    told = why if why.startswith(app) else f"{app}: {why}"
    return CannotStart(f"the app cannot be loaded: {told}", traceback if before else "")


@contextmanager
def _named(part: str) -> Iterator[None]:
    """Say in an error of the operating system what it was that needed it."""
    try:
        yield
    except OSError as error:
        error.add_note(f"needed by {part}")
        raise
