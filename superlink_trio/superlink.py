"""A SuperLink as a Trio task tree.

    superlink                rest for one: each stands on what was started before it
    ├── state                opens first, closes last
    └── apis                 one for one: each restarts alone
        ├── driver
        └── fleet

The asyncio loop that gRPC needs is no part of the tree: it is opened around it, so that no
gRPC server can outlive it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import attrs
import trio

from superlink_trio.address import Address
from superlink_trio.config import Apis, SuperLinkConfig
from superlink_trio.driver import Progress, driver_api
from superlink_trio.fleet import adapter_api, fleet_api
from superlink_trio.rpc import Api
from superlink_trio.state import MemoryState, State
from superlink_trio.supervision import (
    Child,
    Control,
    Event,
    EventKind,
    Group,
    Restart,
    Strategy,
    shielded_stop,
    supervise,
)
from superlink_trio.transport.grpc import GrpcOptions, TrioEventLoop, open_loop, serve_grpc

Observer = Callable[[Event], None]

_log = logging.getLogger(__name__)

_DRIVER, _FLEET = "superlink/apis/driver", "superlink/apis/fleet"

# What was acknowledged is kept already when the state is asked to stop: it only has to close.
_STATE_GRACE = 0.25

# What a server needs beyond the grace of its calls: to cancel what is left and see it end.
_DRAIN = 0.2

# Bytes of one message, both ways: the limit that Flower's clients have.
_MESSAGE_LIMIT = 536_870_912


class SuperLink:
    """A running SuperLink: where it listens, how it is doing, and how to stop it."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._ended = trio.Event()
        self._states: dict[str, EventKind] = {}
        self._addresses: dict[str, Address] = {}

    @property
    def driver_address(self) -> Address | None:
        """Where the Driver API listens, by the port really bound; None if it does not run here."""
        return self._addresses.get(_DRIVER)

    @property
    def fleet_address(self) -> Address | None:
        """Where the Fleet API listens, by the port really bound; None if it does not run here."""
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

    def _observe(self, event: Event) -> None:
        self._states[event.path] = event.kind
        if isinstance(event.value, Address):
            self._addresses[event.path] = event.value


async def run_superlink(
    config: SuperLinkConfig,
    *,
    observer: Observer | None = None,
    task_status: trio.TaskStatus[SuperLink] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the Driver API and the Fleet API until stopped.

    `task_status.started` gets a `SuperLink` when both listen; cancelling the scope around this
    call is the same graceful stop as its `stop()`. `observer` is called with every event of the
    supervision tree. No signal is touched.

    Raises ConfigErrors with every fault of the config before anything is started, and an
    ExceptionGroup of everything that failed for good; an address that cannot be listened on
    is an OSError in it.
    """
    await _run(Apis.BOTH, config, observer, task_status)


async def run_driver_api(
    config: SuperLinkConfig,
    *,
    observer: Observer | None = None,
    task_status: trio.TaskStatus[SuperLink] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the Driver API alone, over a database it shares; otherwise like `run_superlink`."""
    await _run(Apis.DRIVER, config, observer, task_status)


async def run_fleet_api(
    config: SuperLinkConfig,
    *,
    observer: Observer | None = None,
    task_status: trio.TaskStatus[SuperLink] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the Fleet API alone, over a database it shares; otherwise like `run_superlink`."""
    await _run(Apis.FLEET, config, observer, task_status)


async def _run(
    apis: Apis,
    config: SuperLinkConfig,
    observer: Observer | None,
    task_status: trio.TaskStatus[SuperLink],
) -> None:
    config.check(apis)
    async with shielded_stop() as control, open_loop() as loop:
        link = SuperLink(control)

        def observe(event: Event) -> None:
            link._observe(event)
            _log_event(event)
            if observer is not None:
                observer(event)

        try:
            await supervise(
                _tree(apis, _Services(config, MemoryState(), loop, link)),
                control=control,
                observer=observe,
                task_status=_Ready(link, task_status),
            )
        finally:
            link._ended.set()


@attrs.frozen
class _Ready:
    """Passes on that the tree is ready, with the handle that its starter waits for."""

    link: SuperLink
    task_status: trio.TaskStatus[SuperLink]

    def started(self, value: None = None) -> None:
        self.task_status.started(self.link)


def _tree(apis: Apis, services: _Services) -> Group:
    grace = services.config.grace + _DRAIN
    serves = {Apis.DRIVER: ("driver", services.driver), Apis.FLEET: ("fleet", services.fleet)}
    return Group(
        name="superlink",
        strategy=Strategy.REST_FOR_ONE,
        children=[
            # What is in memory is gone when its store fails: starting it again would hide that.
            Child(name="state", serve=services.state.serve, grace=_STATE_GRACE),
            Group(
                name="apis",
                strategy=Strategy.ONE_FOR_ONE,
                children=[
                    Child(name=name, serve=serve, restart=Restart.ON_FAILURE, grace=grace)
                    for api, (name, serve) in serves.items()
                    if api in apis
                ],
            ),
        ],
    )


@attrs.frozen
class _Services:
    """The leaves of the tree. Each life of a service makes its API anew."""

    config: SuperLinkConfig
    state: State
    loop: TrioEventLoop
    link: SuperLink

    async def driver(self, *, stopping: trio.Event, task_status: trio.TaskStatus[Address]) -> None:
        progress = Progress()
        api = driver_api(
            self.state,
            hold=self.config.driver_hold,
            message_limit=_MESSAGE_LIMIT,
            progress=progress,
        )
        # After a failure the port is the one that clients know by now, even if any would have done.
        address = self.link.driver_address or self.config.driver_api_address
        async with trio.open_nursery() as nursery:
            nursery.start_soon(progress.tell)
            with _named("the Driver API"):
                await self._serve([api], address, stopping, task_status)
            nursery.cancel_scope.cancel()

    async def fleet(self, *, stopping: trio.Event, task_status: trio.TaskStatus[Address]) -> None:
        api = fleet_api(
            self.state,
            hold=self.config.hold,
            readmit=self.config.readmit,
            message_limit=_MESSAGE_LIMIT,
        )
        address = self.link.fleet_address or self.config.fleet_api_address
        assert address is not None, "a simulation has no Fleet API"
        with _named("the Fleet API"):
            if self.config.fleet_api_type == "rest":
                await self._serve_rest(api, address, stopping, task_status)
            else:
                await self._serve([api, adapter_api(api)], address, stopping, task_status)

    async def _serve_rest(
        self,
        api: Api,
        address: Address,
        stopping: trio.Event,
        task_status: trio.TaskStatus[Address],
    ) -> None:
        # An extra: who serves gRPC need not have it.
        from superlink_trio.transport.rest import RestOptions, serve_rest

        await serve_rest(
            api,
            address,
            options=RestOptions(max_body=_MESSAGE_LIMIT, grace=self.config.grace),
            stopping=stopping,
            task_status=task_status,
        )

    async def _serve(
        self,
        apis: Sequence[Api],
        address: Address,
        stopping: trio.Event,
        task_status: trio.TaskStatus[Address],
    ) -> None:
        await serve_grpc(
            apis,
            address,
            loop=self.loop,
            options=GrpcOptions(max_message_length=_MESSAGE_LIMIT, grace=self.config.grace),
            stopping=stopping,
            task_status=task_status,
        )


@contextmanager
def _named(part: str) -> Iterator[None]:
    """Say in an error of the operating system what it was that needed it."""
    try:
        yield
    except OSError as error:
        error.add_note(f"needed by {part}")
        raise


def _log_event(event: Event) -> None:
    fields = {"part": event.path, "transition": event.kind.name.lower()}
    if event.kind is EventKind.RESTARTING:
        _log.warning("%s restarts in %.1f s", event.path, event.delay, extra=fields)
    elif event.kind is EventKind.FAILED:
        _log.error("%s failed: %s", event.path, event.cause, extra=fields)
    else:
        _log.debug("%s %s", event.path, event.kind.name.lower(), extra=fields)
