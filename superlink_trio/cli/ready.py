"""What a SuperLink says of itself once it is ready: a line for people, fields for machines."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Protocol

from superlink_trio import __version__
from superlink_trio.config import MEMORY, Address, SuperLinkConfig
from superlink_trio.logs.wording import counted

# What a client, or the machine, comes up against first.
_LIMITS = ("max_nodes", "max_message_size", "max_connections", "max_calls", "max_stored_size")


class Listening(Protocol):
    """Where a SuperLink listens. None: not at all."""

    @property
    def driver_address(self) -> Address | None:
        """Where drivers connect."""

    @property
    def fleet_address(self) -> Address | None:
        """Where nodes connect."""

    @property
    def flower_address(self) -> Address | None:
        """Where nodes and `flwr` of Flower 1.35 and later connect."""

    @property
    def control_address(self) -> Address | None:
        """Where `flwr` connects, if not with the nodes."""

    @property
    def control_grpc_address(self) -> Address | None:
        """Where `flwr` of 1.21 to 1.36 connects."""

    @property
    def admin_address(self) -> Address | None:
        """Where operators look."""


def ready_line(config: SuperLinkConfig, link: Listening) -> str:
    """Say in one line what listens where, and what it asks of its clients."""
    return f"ready: {', '.join(_parts(config, link))}"


def ready_fields(config: SuperLinkConfig, link: Listening) -> Mapping[str, object]:
    """Give the same and the limits, as fields of the JSON log."""
    fields: dict[str, object] = {"version": __version__, "pid": os.getpid()}
    for name, address, tls in _apis(config, link):
        fields[f"{name}_address"] = None if address is None else str(address)
        if address is not None:
            fields[f"{name}_listens_on"] = [str(bound) for bound in address.bound or (address,)]
            fields[f"{name}_tls"] = tls or "off"
    if link.fleet_address is not None:
        fields["fleet_api_type"] = config.fleet_api_type
        fields["node_authentication"] = config.require_client_authentication is not None
    if link.flower_address is not None:
        fields["control_token"] = config.control_token_file is not None
    fields["database"] = _database(config)
    fields["workers"] = config.workers
    # None: what it comes to has a line of its own.
    return fields | {name: getattr(config, name) for name in _LIMITS}


def _parts(config: SuperLinkConfig, link: Listening) -> Iterator[str]:
    listening = [(name, at, tls) for name, at, tls in _apis(config, link) if at is not None]
    if not listening:
        yield "no port is open"
    for name, address, tls in listening:
        words = f"{_NAMES[name]} on {_places(address)} {f'over {tls}' if tls else 'without TLS'}"
        if name == "fleet":
            words += f" ({_nodes(config)})"
        if name in _for_operators(link):
            words += f" ({_operators(config)})"
        yield words
    if config.fleet_api_type == "vce" and config.num_supernodes:
        yield f"{counted(config.num_supernodes, 'simulated node')}"
    if config.workers > 1:
        yield f"{config.workers} workers"
    database = _database(config)
    yield "state in memory" if database == "memory" else f"state in {database}"
    yield f"version {__version__}, pid {os.getpid()}"


_NAMES = {
    "driver": "Driver API",
    "fleet": "Fleet API",
    "flower": "Flower 1.35 and later",
    "control": "Control API",
    "control_grpc": "Control API over gRPC",
    "admin": "admin",
}


def _apis(
    config: SuperLinkConfig, link: Listening
) -> Iterator[tuple[str, Address | None, str | None]]:
    """Give the APIs, where they listen, and what encrypts them."""
    driver_tls = "TLS" if config.tls else None
    if config.tls and config.driver_client_ca is not None:
        driver_tls = "TLS with client certificates"
    yield "driver", link.driver_address, driver_tls
    yield "fleet", link.fleet_address, "TLS" if config.fleet_tls else None
    https = None if config.rest_files is None else "TLS"
    yield "flower", link.flower_address, https
    yield "control", link.control_address, https
    yield "control_grpc", link.control_grpc_address, "TLS" if config.tls else None
    yield "admin", link.admin_address, None


def _places(address: Address) -> str:
    """Write an address, and what it stands for where that is not plain."""
    bound = [bound for bound in address.bound if bound != address]
    return f"{address} ({' and '.join(map(str, bound))})" if bound else str(address)


def _nodes(config: SuperLinkConfig) -> str:
    protocol = "REST" if config.fleet_api_type == "rest" else "gRPC"
    listed = config.require_client_authentication is not None
    return f"{protocol}, {'only nodes with a listed key' if listed else 'no node authentication'}"


def _for_operators(link: Listening) -> tuple[str, ...]:
    """Give the APIs that answer `flwr`."""
    return ("flower" if link.control_address is None else "control", "control_grpc")


def _operators(config: SuperLinkConfig) -> str:
    return "flwr of this machine only" if config.control_token_file is None else "flwr with a token"


def _database(config: SuperLinkConfig) -> str:
    if config.database in (MEMORY, ":memory:"):
        return "memory"
    # In a URL there may be a password.
    scheme, is_url, _ = config.database.partition("://")
    return scheme if is_url else config.database
