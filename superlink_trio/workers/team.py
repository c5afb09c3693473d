"""A SuperLink of several processes, as its parent sees it.

    superlink            one for one
    ├── admin            if there is an address for it: health, metrics, a page
    ├── worker-1         a process, whose tree is below it
    └── worker-2 …

A worker that ends is started again, like any part that fails; too many ends within a minute end the
SuperLink. At a stop all of them are asked at the same time.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

import attrs
import trio

from superlink_trio.admin import AdminService, History, Overview
from superlink_trio.config import Address, Apis, SuperLinkConfig
from superlink_trio.config.changes import Current
from superlink_trio.handle import CONTROL, CONTROL_GRPC, DRIVER, FLEET, HTTP
from superlink_trio.leaves import Sockets
from superlink_trio.logs import rendering
from superlink_trio.logs.events import EventLog
from superlink_trio.supervision import (
    Child,
    Control,
    Event,
    Group,
    Restart,
    Strategy,
    shielded_stop,
    supervise,
)
from superlink_trio.workers.gathering import Gathered
from superlink_trio.workers.messages import (
    Happened,
    LogSettings,
    News,
    Reload,
    Runs,
    Start,
)
from superlink_trio.workers.parts import part_of, starts_runs
from superlink_trio.workers.place import NotTold, Place
from superlink_trio.workers.ports import Ports, open_ports

_log = logging.getLogger(__name__)

# What a worker needs beyond the grace of its calls: to close its state, and to end.
_END = 1.0

# What the admin surface needs to see its connections end, in seconds.
_DRAIN = 0.2

# Seconds that a worker may take to read keys and options again.
_RELOADS_WITHIN = 30.0

_ADMIN = "superlink/admin"

MakeLog = Callable[[int], LogSettings]
"""Says how a worker's log is rendered, given the descriptor that takes it."""


class Reported(Exception):
    """What a worker says of a failure of its own."""


async def run_workers(
    apis: Apis,
    config: SuperLinkConfig,
    *,
    command: Callable[[int], Callable[[int], Sequence[str]]],
    log: MakeLog,
    control: Control | None = None,
    sockets: Sockets,
    task_status: trio.TaskStatus[Team] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run these APIs in `config.workers` processes, until stopped; otherwise like `run_superlink`.

    `command` makes, of a worker's number, what `ChildProcess.start` wants: a program that ends up
    in `serve_part`. `task_status` gets a handle when all workers are ready.
    """
    config.check(apis)
    numbers = range(1, config.workers + 1)
    serving = {name: each for name, each in sockets.items() if name != "admin_address"}
    async with (
        shielded_stop(control) as control,
        open_ports(config, apis, serving) as ports,
        AsyncExitStack() as stack,
    ):
        team = Team(apis, Current(config, apis), ports, log)
        team.places = [team.place(number, command(number)) for number in numbers]
        for place in team.places:
            stack.push_async_callback(place.discard)
            await place.launch()
        await supervise(
            team.tree(sockets.get("admin_address", ())),
            control=control,
            observer=team.observe,
            task_status=_Ready(team, task_status),
        )


@attrs.define(eq=False)
class Team:
    """Running workers: where they listen, and how to let them read their config again."""

    _apis: Apis
    _current: Current
    _ports: Ports
    _log: MakeLog
    _history: History = attrs.field(factory=History, init=False)
    _log_event: EventLog = attrs.field(
        factory=partial(EventLog, frozenset({"superlink"})), init=False
    )
    _cookies: bytes = attrs.field(factory=partial(secrets.token_bytes, 32), init=False, repr=False)
    _runs: Runs = attrs.field(factory=partial(Runs, ()), init=False)
    _addresses: dict[str, Address] = attrs.field(factory=dict, init=False)
    """By the paths in the tree of the parent."""
    places: Sequence[Place] = attrs.field(default=(), init=False)

    @property
    def driver_address(self) -> Address | None:
        """Where drivers connect; None: nowhere, as of all of these."""
        return self._address(DRIVER)

    @property
    def fleet_address(self) -> Address | None:
        """Where nodes connect."""
        return self._address(FLEET)

    @property
    def flower_address(self) -> Address | None:
        """Where nodes and `flwr` of Flower 1.35 and later connect."""
        return self._address(HTTP)

    @property
    def control_address(self) -> Address | None:
        """Where `flwr` connects, if not with the nodes."""
        return self._address(CONTROL)

    @property
    def control_grpc_address(self) -> Address | None:
        """Where `flwr` of 1.21 to 1.36 connects."""
        return self._address(CONTROL_GRPC)

    @property
    def admin_address(self) -> Address | None:
        """Where operators look."""
        return self._addresses.get(_ADMIN)

    def _address(self, path: str) -> Address | None:
        # The first serves whatever is served.
        return self._addresses.get(_below(1, path))

    async def reload(self, config: SuperLinkConfig | None = None) -> None:
        """Let all workers read keys and certificates again, and take what may change of `config`.

        The log says what has changed once, and what each worker does otherwise. Raises ConfigErrors
        if it cannot run; nothing is changed then.
        """
        if config is not None:
            self._current.take(config)
        silent: list[NotTold] = []
        async with trio.open_nursery() as nursery:
            for place in self.places:
                if place.pid is not None:  # who is not ready yet is told once it is
                    nursery.start_soon(self._reload, place, silent)
        for error in silent:
            _log.warning("%s: it may go on with what it had", error)
        if not silent:
            _log.info("All workers have read again what there is")

    async def _reload(self, place: Place, silent: list[NotTold]) -> None:
        _, config = self._part(place.number)
        try:
            await place.ask(Reload(config, rendering.level()), _RELOADS_WITHIN)
        except NotTold as error:
            silent.append(error)

    def place(self, number: int, command: Callable[[int], Sequence[str]]) -> Place:
        """Make a worker that is not started yet."""
        inherited = [each for some in self._ports.descriptors.values() for each in some]
        return Place(
            number=number,
            command=command,
            start=partial(self._start, number),
            inherited=inherited,
            listener=self,
        )

    def _start(self, number: int, pipe: int) -> Start:
        apis, config = self._part(number)
        return Start(
            number=number,
            apis=apis,
            config=config,
            sockets=self._ports.descriptors,
            log=self._log(pipe),
            runs=self._runs.processes if starts_runs(number) else (),
            cookies=self._cookies,
        )

    def _part(self, number: int) -> tuple[Apis, SuperLinkConfig]:
        return part_of(number, self._apis, self._ports.applied(self._current()))

    def tree(self, sockets: Sequence[socket.socket]) -> Group:
        """Describe the tree; `sockets` listen already at the admin address."""
        return Group(
            name="superlink",
            strategy=Strategy.ONE_FOR_ONE,
            children=[*self._admin(sockets), *self._workers()],
        )

    def _admin(self, sockets: Sequence[socket.socket]) -> Iterator[Child]:
        config = self._current()
        if config.admin_address is None:
            return
        overview = Overview(
            history=self._history, addresses=self.addresses, sources=Gathered(self.places)
        )
        serve = AdminService(config=config, overview=overview, sockets=sockets)
        yield Child(name="admin", serve=serve, restart=Restart.ON_FAILURE, grace=_DRAIN)

    def _workers(self) -> Iterator[Child]:
        grace = self._current().grace + _END
        for place in self.places:
            name = f"worker-{place.number}"
            yield Child(name=name, serve=place.serve, restart=Restart.ON_FAILURE, grace=grace)

    def addresses(self) -> Mapping[str, Address]:
        """Give the address of everything that listens, by its path in the tree."""
        return dict(self._addresses)

    def observe(self, event: Event) -> None:
        """Take note of a step of the tree."""
        self._history.note(event)
        self._log_event(event)
        if isinstance(event.value, Address):
            self._addresses[event.path] = event.value
        elif isinstance(event.value, Mapping):
            self._is_ready(int(event.path.rpartition("-")[2]), event.value)

    def _is_ready(self, number: int, addresses: Mapping[str, Address]) -> None:
        self._addresses |= {_below(number, path): at for path, at in addresses.items()}
        place = self.places[number - 1]
        _, config = self._part(number)
        if place.started_with is not None and place.started_with.config != config:
            # A reload came while it was started.
            place.tell(Reload(config, rendering.level()))

    def happened(self, number: int, happened: Happened) -> None:
        """Take note of a step of a worker's tree, as one below its place in this tree."""
        path = _below(number, happened.path)
        if path == _below(number, "superlink"):
            return  # told of by its place
        cause = Reported(happened.why) if happened.why else None
        now = trio.current_time()
        self._history.note(
            Event(kind=happened.kind, path=path, time=now, cause=cause, delay=happened.delay)
        )

    def told(self, number: int, news: News) -> None:
        """Tell all other workers what happened at one."""
        for place in self.places:
            if place.number != number:
                place.tell(news)

    def runs(self, runs: Runs) -> None:
        """Keep the processes of runs for who takes the place of the worker that started them."""
        self._runs = runs

    def gone(self, number: int) -> None:
        """Take note that a worker has ended, and all of its parts."""
        self._history.forget(_below(number, "superlink"))


def _below(number: int, path: str) -> str:
    """Give where a part of a worker's tree is in the tree of the parent."""
    return f"superlink/worker-{number}{path.removeprefix('superlink')}"


@attrs.frozen
class _Ready:
    """Passes on that all workers are ready, with their handle."""

    team: Team
    task_status: trio.TaskStatus[Team]

    def started(self, value: None = None) -> None:
        self.task_status.started(self.team)
