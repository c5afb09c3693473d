"""Federated rounds, run by the server itself.

    federation               rest for one; stopped in reverse
    ├── server               gRPC: clients join, and are told to disconnect in the end
    └── rounds               the round loop; when it is over so is everything

`serve_rounds` is for Trio applications; `script.start_server` for scripts.
"""

from __future__ import annotations

import inspect
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import overload

import attrs
import trio

from superlink_trio.config import Address, Limits
from superlink_trio.federation import (
    ClientManagerLike,
    ConfigLike,
    History,
    HistoryLike,
    Observer,
    Server,
    ServerConfig,
    ServerLike,
    SimpleClientManager,
    StrategyLike,
    join_api,
)
from superlink_trio.federation.join import SERVICE
from superlink_trio.logs.wording import counted
from superlink_trio.rpc import WHOLE, Health
from superlink_trio.supervision import (
    Child,
    Control,
    Event,
    EventKind,
    Group,
    shielded_stop,
    supervise,
)
from superlink_trio.supervision import Strategy as Supervision
from superlink_trio.transport.grpc import (
    GrpcOptions,
    TrioEventLoop,
    fixed_credentials,
    open_loop,
    serve_grpc,
)

_log = logging.getLogger(__name__)

# Seconds that clients have to disconnect; those that are at work are not waited for.
_GRACE = 0.8

# What the server needs beyond that, to cancel what is left and see it end.
_DRAIN = 0.2

MESSAGE_LIMIT = Limits().max_message_size
"""Bytes of the largest message, by default."""


@attrs.define(eq=False)
class Federation:
    """A run of federated rounds: where clients find it, what it has come to, how to stop it."""

    server: ServerLike
    """The `Server`, or the one of `flwr` that was given."""
    config: ConfigLike
    _limit: int
    _certificates: tuple[bytes, bytes, bytes] | None = attrs.field(repr=False)
    _given_address: Address
    address: Address | None = attrs.field(default=None, init=False)
    """Where it listens, by the port really bound; None before it does."""
    _result: HistoryLike | None = attrs.field(default=None, init=False)
    _control: Control | None = attrs.field(default=None, init=False)
    _health: Health = attrs.field(factory=lambda: Health([SERVICE]), init=False)

    @property
    def history(self) -> HistoryLike:
        """What the run has come to so far."""
        if self._result is not None:
            return self._result
        return self.server.history if isinstance(self.server, Server) else History()

    def stop(self) -> None:
        """Stop, in order: clients are told to disconnect, and `serve_rounds` returns."""
        if self._control is not None:
            self._control.stop()

    async def _run(self, task_status: trio.TaskStatus[Federation]) -> None:
        manager = self.server.client_manager()
        if isinstance(manager, SimpleClientManager):
            manager.start()
        grace = _GRACE + _DRAIN
        async with shielded_stop() as control, open_loop() as loop:
            self._control = control
            tree = Group(
                name="federation",
                strategy=Supervision.REST_FOR_ONE,
                children=[
                    Child(name="server", serve=partial(self._serve, manager, loop), grace=grace),
                    Child(name="rounds", serve=partial(self._rounds, manager, task_status)),
                ],
            )
            await supervise(tree, control=control, observer=self._observe)

    async def _serve(
        self,
        manager: ClientManagerLike,
        loop: TrioEventLoop,
        *,
        stopping: trio.Event,
        task_status: trio.TaskStatus[Address],
    ) -> None:
        credentials = None
        if self._certificates is not None:
            _, certificate, key = self._certificates
            credentials = fixed_credentials(certificate, key)
        await serve_grpc(
            [self._health.api(), join_api(manager, message_limit=self._limit)],
            self._given_address,
            loop=loop,
            credentials=credentials,
            options=GrpcOptions(max_message_size=self._limit, grace=_GRACE),
            stopping=stopping,
            task_status=task_status,
        )

    async def _rounds(
        self,
        manager: ClientManagerLike,
        handle_status: trio.TaskStatus[Federation],
        *,
        stopping: trio.Event,
        task_status: trio.TaskStatus[None],
    ) -> None:
        task_status.started()
        handle_status.started(self)
        _log.info(
            "Listening on %s, TLS is %s; %s with %s",
            *(self.address, "off" if self._certificates is None else "on"),
            *(counted(self.config.num_rounds, "round"), type(self.server.strategy).__name__),
            extra={"address": str(self.address)},
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when, stopping, nursery.cancel_scope)
                await self._fit()
                nursery.cancel_scope.cancel()
        finally:
            # Whoever is left in a thread and waits for clients.
            if isinstance(manager, SimpleClientManager):
                manager.stop()
        assert self._control is not None
        self._control.stop()

    def _observe(self, event: Event) -> None:
        if isinstance(event.value, Address):
            self.address = event.value
        if event.path == "federation/server":
            for service in (WHOLE, SERVICE):
                self._health.note(service, serving=event.kind is EventKind.READY)
        level = logging.WARNING if event.kind is EventKind.CANCELLED else logging.DEBUG
        _log.log(level, "%s %s", event.path, event.kind.name.lower(), extra={"part": event.path})

    async def _fit(self) -> None:
        fit = self.server.fit
        arguments = self.config.num_rounds, self.config.round_timeout
        if inspect.iscoroutinefunction(fit):
            result = await fit(*arguments)
        else:
            result = await trio.to_thread.run_sync(fit, *arguments, abandon_on_cancel=True)
        self._result, seconds = result
        _log.info("Finished %s in %.2f s", counted(self.config.num_rounds, "round"), seconds)
        for line in str(self._result).splitlines():
            _log.info("%s", line)


@overload
async def serve_rounds(
    *,
    server_address: str = ...,
    server: Server | None = ...,
    config: ConfigLike | None = ...,
    strategy: StrategyLike | None = ...,
    client_manager: ClientManagerLike | None = ...,
    grpc_max_message_length: int = ...,
    certificates: tuple[bytes, bytes, bytes] | None = ...,
    observer: Observer | None = ...,
    task_status: trio.TaskStatus[Federation] = ...,
) -> History: ...


@overload
async def serve_rounds(
    *,
    server_address: str = ...,
    server: ServerLike,
    config: ConfigLike | None = ...,
    strategy: StrategyLike | None = ...,
    client_manager: ClientManagerLike | None = ...,
    grpc_max_message_length: int = ...,
    certificates: tuple[bytes, bytes, bytes] | None = ...,
    observer: Observer | None = ...,
    task_status: trio.TaskStatus[Federation] = ...,
) -> HistoryLike: ...


async def serve_rounds(
    *,
    server_address: str = "[::]:8080",
    server: ServerLike | None = None,
    config: ConfigLike | None = None,
    strategy: StrategyLike | None = None,
    client_manager: ClientManagerLike | None = None,
    grpc_max_message_length: int = MESSAGE_LIMIT,
    certificates: tuple[bytes, bytes, bytes] | None = None,
    observer: Observer | None = None,
    task_status: trio.TaskStatus[Federation] = trio.TASK_STATUS_IGNORED,
) -> HistoryLike:
    """Run federated rounds with the clients that join, and give their History.

    Arguments:
        server_address: Where clients join; port 0 picks a free one.
        server: Runs the rounds, instead of a `Server` made of `strategy` and `client_manager`;
            one of `flwr` does too.
        config: A `ServerConfig`; by default one round without a timeout.
        strategy: Chooses clients and aggregates; by default `FedAvg()`.
        client_manager: Knows the clients; by default a `SimpleClientManager`.
        grpc_max_message_length: Bytes of the largest message; clients have a limit of their own.
        certificates: CA, certificate and key, PEM, for TLS.
        observer: Notified of rounds, phases and answers while they happen.
        task_status: Gets a `Federation` when clients can join.

    Cancelling this stops in order: clients are told to disconnect. So does the handle's `stop`, and
    after that the History so far is returned.

    Raises ValueError for a malformed address, an ExceptionGroup of faults of the certificates,
    AddressError, and whatever the strategy raises.
    """
    federation = prepare(
        *(server_address, server, config, strategy, client_manager),
        *(grpc_max_message_length, certificates, observer),
    )
    await run(federation, task_status)
    return federation.history


async def run(
    federation: Federation, task_status: trio.TaskStatus[Federation] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a federation to its end. Raises what `serve_rounds` does."""
    with unwrapped():
        await federation._run(task_status)


def prepare(
    server_address: str,
    server: ServerLike | None,
    config: ConfigLike | None,
    strategy: StrategyLike | None,
    client_manager: ClientManagerLike | None,
    limit: int,
    certificates: tuple[bytes, bytes, bytes] | None,
    observer: Observer | None,
) -> Federation:
    """Check everything that can be checked before anything starts."""
    address = _usable(Address.parse(server_address))
    if certificates is not None:
        # What reads certificates takes a tenth of a second to import.
        from superlink_trio.credentials.certificates import check

        check(*certificates)
    if server is None:
        server = Server(client_manager=client_manager, strategy=strategy)
    elif strategy is not None or client_manager is not None:
        _log.warning("A server was given: strategy and client_manager are its own, not these")
    if observer is not None and isinstance(server, Server):
        server.observer = observer
    return Federation(
        server,
        ServerConfig() if config is None else config,
        limit,
        certificates,
        address,
    )


def _usable(address: Address) -> Address:
    """Take "every address" for every IPv4 address on a machine without IPv6, as gRPC does."""
    if address.host != "::":
        return address
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return Address("0.0.0.0", address.port)
    return address


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise a single error as it is, out of the groups of the tasks that it has come through."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            [error] = error.exceptions
        if error is group:
            raise
    else:
        return
    raise error
