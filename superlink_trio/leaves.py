"""The leaves of a SuperLink's tree, and what each is made of."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import attrs

from superlink_trio.admin import (
    AdminService,
    AnswerService,
    Counts,
    Flower,
    Overview,
    OwnSources,
    Questions,
    Watching,
)
from superlink_trio.config import Address, Apis, SuperLinkConfig
from superlink_trio.config.changes import Current
from superlink_trio.driver import DriverService
from superlink_trio.fleet import FleetService, Presence
from superlink_trio.handle import SuperLink
from superlink_trio.processes.handover import Handover
from superlink_trio.rounds import Rounds
from superlink_trio.state import State
from superlink_trio.supervision import Child, Group, Restart, Service
from superlink_trio.transport.grpc import GrpcService

if TYPE_CHECKING:
    from superlink_trio.credentials import Credentials
    from superlink_trio.simulation.progress import Display

Sockets: TypeAlias = Mapping[str, Sequence[socket.socket]]

# What was acknowledged is kept already when the state is asked to stop: it only has to close.
_STATE_GRACE = 0.25

# What a server needs beyond the grace of its calls: to cancel what is left and see it end.
_DRAIN = 0.2

# The Driver API's share of the files that the process may open, where nodes connect to it too.
# Drivers are few.
_DRIVERS_SHARE = 1 / 8


class Shared(Protocol):
    """What of this process concerns others that serve together with it."""

    def share(self) -> None:
        """Take notes for the others from now on."""

    def take(self) -> Any:
        """Give what they have to be told and were not yet; None: nothing."""

    def hear(self, told: Any) -> None:
        """Take note of what another one gave."""


@attrs.frozen(kw_only=True)
class Worker:
    """What connects a SuperLink with others that serve together with it."""

    questions: Questions
    """What is asked by the process that serves operators for all of them."""
    share: Callable[[str, Shared], None]
    """Is given, by a name, what has to be told of what happens at the others."""
    handover: Handover | None
    """What is left to the next, where this process starts those of runs; None: another one does."""
    cookies: bytes = attrs.field(repr=False)
    """The secret with which all of them make nodes' cookies."""


@attrs.frozen(kw_only=True)
class Leaves:
    """The leaves of the tree. What is heavy is imported only for who has it."""

    served: Apis
    current: Current
    credentials: Credentials | None
    state: State
    grpc: GrpcService
    link: SuperLink
    watching: Watching
    presence: Presence
    rounds: Rounds
    sockets: Sockets
    display: Display | None
    flower: Flower | None
    worker: Worker | None
    """None: this process serves alone."""

    @property
    def config(self) -> SuperLinkConfig:
        """The config in force."""
        return self.current()

    def stores(self) -> Iterator[Child]:
        """Give what keeps nodes, runs, tasks and messages."""
        # What is in memory is gone when its store fails: starting it again would hide that.
        yield Child(name="state", serve=self.state.serve, grace=_STATE_GRACE)
        if self.flower is not None:
            yield Child(name="messages", serve=self.flower.state.serve, grace=_STATE_GRACE)

    def traces(self) -> Iterator[Child]:
        """Give what sends spans."""
        if (traces := self.watching.traces) is not None:
            yield Child(name="traces", serve=traces.serve, grace=self.config.grace)

    def certificates(self) -> Iterator[Child]:
        """Give what says in time that a certificate expires."""
        if self.credentials is not None:
            for name, certificates in self.credentials.certificates.items():
                yield Child(name=f"certificates-{name.lower()}", serve=certificates.serve)

    def apis(self) -> Iterator[Child | Group]:
        """Give what serves."""
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
        if self.flower is not None:
            yield from self._flower(self.flower)

    def _admin(self) -> Service:
        sources = OwnSources(
            calls=self.watching.calls,
            rates=self.watching.rates,
            state=self.state,
            counts=Counts(self.state),
            nodes=self.presence.views,
            rounds=self.rounds.views,
            flower=self.flower,
        )
        if self.worker is not None:
            return AnswerService(sources, self.worker.questions)
        return AdminService(
            config=self.config,
            overview=Overview(
                history=self.watching.history, addresses=self.link.addresses, sources=sources
            ),
            sockets=self.sockets.get("admin_address", ()),
        )

    def _flower(self, flower: Flower) -> Iterator[Child | Group]:
        # What a SuperLink of older releases need not have.
        from superlink_trio.control import TodaysFlower

        def bound(path: str) -> Address | None:
            return self.link.addresses().get(f"superlink/apis/{path}")

        return TodaysFlower(
            current=self.current,
            state=flower.state,
            nodes=flower.nodes,
            rounds=flower.rounds,
            credentials=self.credentials,
            grpc=self.grpc,
            bound=bound,
            observers=lambda system, path: self.watching.observers(system, lambda: bound(path)),
            sockets=self.sockets,
            starts_runs=self.worker is None or self.worker.handover is not None,
            handover=None if self.worker is None else self.worker.handover,
            cookies=secrets.token_bytes(32) if self.worker is None else self.worker.cookies,
        ).parts()

    @property
    def _drivers_share(self) -> float:
        both = self.served is Apis.BOTH and self.config.fleet_place is not None
        return _DRIVERS_SHARE if both else 1.0

    def _driver(self) -> Service:
        return DriverService(
            current=self.current,
            state=self.state,
            rounds=self.rounds,
            grpc=self.grpc,
            # After a failure the port is the one that clients know by now, even if any would have
            # done.
            address=lambda: self.link.driver_address or self.config.driver_place.address,
            fleet_address=lambda: self.link.fleet_address,
            share=self._drivers_share,
            observers=self.watching.observers("grpc", lambda: self.link.driver_address),
        )

    def _fleet(self) -> Service:
        place = self.config.fleet_place
        assert place is not None, "a simulation has no Fleet API"
        carrier = "rest" if self.config.fleet_api_type == "rest" else "grpc"
        return FleetService(
            current=self.current,
            state=self.state,
            presence=self.presence,
            credentials=self.credentials,
            grpc=self.grpc,
            address=lambda: self.link.fleet_address or place.address,
            driver_address=lambda: self.link.driver_address,
            share=1 - self._drivers_share if self._drivers_share < 1 else 1.0,
            observers=self.watching.observers(carrier, lambda: self.link.fleet_address),
            messages=None if self.flower is None else self.flower.state,
            supernodes=None if self.flower is None else self.flower.nodes,
            sockets=self.sockets.get("rest_fleet_api_address", ()),
        )

    def _simulation(self) -> Service:
        # What a SuperLink of real nodes need not have.
        from superlink_trio.simulation.service import SimulationService

        if self.config.client_app is not None or self.flower is None:
            return SimulationService.of(self.config, self.state, self.display)
        return SimulationService.of_today(self.config, self.flower.state, self.display)


def _api(name: str, serve: Service, grace: float) -> Child:
    return Child(name=name, serve=serve, restart=Restart.ON_FAILURE, grace=grace)
