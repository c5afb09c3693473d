"""Where each API listens: where it was told to, or where it goes when nobody says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from superlink_trio.config.address import Address
from superlink_trio.config.options import Apis

if TYPE_CHECKING:
    from superlink_trio.config.superlink import SuperLinkConfig

DRIVER_PORT, GRPC_FLEET_PORT, REST_FLEET_PORT = 9091, 9092, 9093

_NO_TLS = "--insecure for no encryption"
_HOW_GRPC = f"--certificates CA_CERT SERVER_CERT PRIVATE_KEY for TLS, or {_NO_TLS}"
_HOW_HTTP = f"--ssl-certfile FILE and --ssl-keyfile FILE for HTTPS, or {_NO_TLS}"


@attrs.frozen(kw_only=True)
class Place:
    """Where one API is to listen: everywhere if it is secured, else on loopback."""

    api: str
    """What people call it."""
    field: str
    """The field of `SuperLinkConfig` that says where."""
    given: Address | None
    """What it says."""
    port: int
    """The port where nothing is given."""
    secured: bool
    """Whether it was said how other machines are to be served: over TLS, or knowingly without."""
    how: str
    """The options that say so."""
    tls: bool
    """Whether what travels is encrypted."""
    http: bool
    """Whether HTTP carries it; gRPC otherwise."""

    @property
    def address(self) -> Address:
        """Where to listen."""
        return self.given or Address("0.0.0.0" if self.secured else "localhost", self.port)


def of(config: SuperLinkConfig, apis: Apis) -> list[Place]:
    """List where these APIs are to listen."""
    places = [
        driver(config) if Apis.DRIVER in apis else None,
        fleet(config) if Apis.FLEET in apis else None,
        *((flower(config), control(config), control_grpc(config)) if apis is Apis.BOTH else ()),
    ]
    return [place for place in places if place is not None]


def driver(config: SuperLinkConfig) -> Place:
    """Give the place of the Driver API."""
    return _grpc(
        config, "the Driver API", "driver_api_address", config.driver_api_address, DRIVER_PORT
    )


def fleet(config: SuperLinkConfig) -> Place | None:
    """Give the place of the chosen Fleet API; None for a simulation, which has no port."""
    api = "the Fleet API"
    match config.fleet_api_type:
        case "vce":
            return None
        case "rest":
            given = config.rest_fleet_api_address
            return _http(config, api, "rest_fleet_api_address", given, REST_FLEET_PORT)
        case _:
            given = config.grpc_rere_fleet_api_address
            return _grpc(config, api, "grpc_rere_fleet_api_address", given, GRPC_FLEET_PORT)


def flower(config: SuperLinkConfig) -> Place | None:
    """Give the place of Flower 1.35 and later over HTTP; None: it is not served."""
    if config.port is None:
        return None
    given = Address(config.host, config.port)
    return _http(config, "the HTTP API", "host", given, config.port)


def control(config: SuperLinkConfig) -> Place | None:
    """Give the place of a Control API over HTTP with a port of its own; None: it has none."""
    given = config.control_address
    if given is None or config.port is None:
        return None
    return _http(config, "the Control API", "control_address", given, given.port)


def control_grpc(config: SuperLinkConfig) -> Place | None:
    """Give the place of the Control API over gRPC; None: it is not served."""
    given = config.control_grpc_address
    if given is None or config.port is None:
        return None
    return _grpc(config, "the Control API over gRPC", "control_grpc_address", given, given.port)


def _grpc(config: SuperLinkConfig, api: str, field: str, given: Address | None, port: int) -> Place:
    return Place(
        api=api,
        field=field,
        given=given,
        port=port,
        secured=_grpc_secured(config),
        how=_HOW_GRPC,
        tls=config.tls,
        http=False,
    )


def _http(config: SuperLinkConfig, api: str, field: str, given: Address | None, port: int) -> Place:
    return Place(
        api=api,
        field=field,
        given=given,
        port=port,
        secured=_grpc_secured(config) or config.rest_files is not None,
        how=_HOW_HTTP,
        tls=config.rest_files is not None,
        http=True,
    )


def _grpc_secured(config: SuperLinkConfig) -> bool:
    return config.insecure or config.certificates is not None
