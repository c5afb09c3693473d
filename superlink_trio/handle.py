"""The handle of a running SuperLink: what an embedding program, and the command line, get."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from superlink_trio.config import Address, SuperLinkConfig
from superlink_trio.config.changes import Current
from superlink_trio.state import State, StateLimits, usual_room
from superlink_trio.supervision import Control, Event, EventKind

if TYPE_CHECKING:
    from superlink_trio.credentials import Credentials

_log = logging.getLogger(__name__)

ADMIN, DRIVER, FLEET = (f"superlink/apis/{name}" for name in ("admin", "driver", "fleet"))
HTTP = "superlink/apis/flower/http"
CONTROL, CONTROL_GRPC = (f"superlink/apis/{name}" for name in ("control", "control-grpc"))
"""The paths of what listens."""


class SuperLink:
    """A running SuperLink: where it listens, how it is doing, and how to stop it."""

    def __init__(
        self,
        control: Control,
        current: Current,
        credentials: Credentials | None,
        state: State,
    ) -> None:
        self._control = control
        self._current = current
        self._credentials = credentials
        self._state = state
        self._ended = trio.Event()
        self._states: dict[str, EventKind] = {}
        self._addresses: dict[str, Address] = {}

    @property
    def config(self) -> SuperLinkConfig:
        """The config in force."""
        return self._current()

    @property
    def driver_address(self) -> Address | None:
        """Where the Driver API listens, by the port really bound; None if it does not run here."""
        return self._addresses.get(DRIVER)

    @property
    def fleet_address(self) -> Address | None:
        """Where the Fleet API listens, by the port really bound; None if it does not run here.

        A simulation has no port either.
        """
        return self._addresses.get(FLEET)

    @property
    def admin_address(self) -> Address | None:
        """Where operators find health, metrics and a page; None if that is not served."""
        return self._addresses.get(ADMIN)

    @property
    def flower_address(self) -> Address | None:
        """Where Flower 1.35 and later is served over HTTP; None if it is not."""
        return self._addresses.get(HTTP)

    @property
    def control_address(self) -> Address | None:
        """Where `flwr` alone is served over HTTP; None if it is served with the rest, or not."""
        return self._addresses.get(CONTROL)

    @property
    def control_grpc_address(self) -> Address | None:
        """Where `flwr` of 1.21 to 1.36 is served over gRPC; None if it is not."""
        return self._addresses.get(CONTROL_GRPC)

    def status(self) -> Mapping[str, EventKind]:
        """Give the last event of each part, by its path in the tree (`superlink/apis/fleet`)."""
        return dict(self._states)

    def addresses(self) -> Mapping[str, Address]:
        """Give the address of every API that listens, by its path in the tree."""
        return dict(self._addresses)

    def ended(self) -> None:
        """Note that everything has ended; for who runs it."""
        self._ended.set()

    async def stop(self) -> None:
        """Stop gracefully, and return when everything has ended.

        New calls are refused, held ones answered, those in flight have the config's `grace`.
        """
        self._control.stop()
        await self._ended.wait()

    def cancel(self) -> None:
        """Stop now: in the same order, but without any grace."""
        self._control.cancel()

    async def reload(self, config: SuperLinkConfig | None = None) -> None:
        """Read certificates, nodes' keys and the secret again, without dropping connections.

        What is not sound is not used: the log says why, and things stay as they were. The calls
        of a node whose key is listed no more end at once.

        Of `config` those options count from now on whose `Option.reloads` says that they can; what
        has begun goes on as it was. The log says which have changed, and which need a restart.
        Raises ConfigErrors if it cannot run; nothing is changed then.
        """
        if config is not None:
            before = self.config.max_stored_size
            self._current.take(config)
            size = self._state.limits.stored_size
            if config.max_stored_size != before:
                size = stored_size(config)
            self._state.limits = state_limits(config, size)
        if self._credentials is None:
            _log.info("There are no keys or certificates to read again")
        else:
            await self._credentials.reload()

    def observe(self, event: Event) -> None:
        """Take note of a step of the tree; for who runs it."""
        self._states[event.path] = event.kind
        if isinstance(event.value, Address):
            self._addresses[event.path] = event.value


def state_limits(config: SuperLinkConfig, size: int) -> StateLimits:
    """Give the limits of the state; `size`: bytes of payloads and tasks."""
    return StateLimits(
        stored_size=size,
        nodes=config.max_nodes,
        tasks_per_node=config.max_tasks_per_node,
    )


def stored_size(config: SuperLinkConfig) -> int:
    """Give the bytes that payloads and tasks may take; the log says so where nobody has."""
    if config.max_stored_size is not None:
        return config.max_stored_size
    room = usual_room(config.database)
    _log.info(
        "Payloads and tasks may take %.1f GiB, %s (--max-stored-size)",
        *(room.size / 2**30, room.of),
        extra={"max_stored_size": room.size},
    )
    return room.size
