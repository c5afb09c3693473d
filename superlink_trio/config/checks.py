"""What can be wrong with a config, and what is worth a line in the log.

What is wrong about values together depends on which APIs are to run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from superlink_trio.config.control import ControlOptions
from superlink_trio.config.options import Apis

if TYPE_CHECKING:
    from superlink_trio.config.places import Place
    from superlink_trio.config.superlink import SuperLinkConfig

MEMORY = ":flwr-in-memory-state:"
"""The database name that means: keep everything in this process's memory."""

_WILDCARD_HOSTS = {"0.0.0.0", "::"}

_TLS = "--certificates CA_CERT SERVER_CERT PRIVATE_KEY"


class CannotStart(Exception):
    """Something that was configured well cannot be had; the message says what and why.

    `details` are lines for whoever has to mend it, such as the traceback of an app.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class ConfigError(ValueError):
    """One fault of a configuration.

    `problem` says what is wrong and what to do. `fields` names the values that it is about, the
    one to change first.
    """

    def __init__(self, problem: str, *fields: str) -> None:
        super().__init__(f"{fields[0]}: {problem}")
        self.problem = problem
        self.fields = fields


class ConfigErrors(ExceptionGroup[ConfigError]):
    """Every fault of a configuration."""

    @property
    def faults(self) -> tuple[ConfigError, ...]:
        """The parts, by their type."""
        return tuple(part for part in self.exceptions if isinstance(part, ConfigError))

    def derive(self, excs: Sequence[ConfigError]) -> ConfigErrors:  # type: ignore[override]  # narrower on purpose: the parts are always ConfigErrors
        """Keep the type when a part of the group is taken (`except*`, `split`)."""
        return ConfigErrors(self.message, excs)


def raise_all(faults: Sequence[ConfigError]) -> None:
    """Raise ConfigErrors if there are any."""
    if faults:
        raise ConfigErrors("this configuration cannot run", faults)


def faults(config: SuperLinkConfig, apis: Apis) -> Iterator[ConfigError]:
    """List what keeps these APIs from running; see `SuperLinkConfig.faults`."""
    for place in config.places(apis):
        if not place.secured and not place.address.loopback:
            yield ConfigError(
                f"{place.address} can be reached from other machines: say how to serve them, by "
                f"{place.how}; or leave the address out, to serve this machine only",
                *(place.field, "insecure", "certificates"),
                *(("ssl_certfile", "ssl_keyfile") if place.field.startswith("rest") else ()),
            )
    yield from _credentials(config, apis)
    yield from _control(config, apis)
    for one, other in combinations(config.places(apis), 2):
        yield from _one_port_twice(one, other)
    yield from _database(config, apis)
    if config.workers > 1:
        yield from _workers(config)
    if apis == Apis.BOTH and config.isolation == "process":
        yield from _superexecs(config)
    if Apis.FLEET in apis and config.fleet_api_type == "vce":
        yield from _simulation(config, apis)
    if config.simulation:
        yield from _simulated_runs(config)


def warnings(config: SuperLinkConfig, apis: Apis) -> list[str]:
    """List what is not as somebody might think; see `SuperLinkConfig.warnings`."""
    warnings = list(_in_the_clear(config, apis))
    driver = config.driver_place.address
    serves_driver, serves_fleet = Apis.DRIVER in apis, Apis.FLEET in apis
    over_a_file = "://" not in config.database
    serves_grpc = serves_driver or config.fleet_api_type in ("grpc-rere", "grpc-adapter")
    if config.insecure and config.certificates and serves_grpc:
        warnings.append(
            "--insecure wins: gRPC is served without TLS, the certificates are not used"
        )
    if config.workers > 1 and config.port is not None and apis is Apis.BOTH and over_a_file:
        over_grpc = "" if config.fleet_api_type == "rest" else " and the Fleet API over gRPC"
        warnings.append(
            f"--workers: over a file the first alone serves Flower 1.23 and later (--port)"
            f"{over_grpc}, the others serve the rest; over PostgreSQL all serve everything"
        )
    if serves_fleet and _certfiles_unused(config):
        warnings.append(
            "--ssl-certfile and --ssl-keyfile are not used: they rule what is served over HTTP only"
        )
    if config.superexec_auth_secret_file is not None and config.isolation != "process":
        warnings.append(
            "--superexec-auth-secret-file is not used: this SuperLink starts the process of a run "
            "itself, unless there is --isolation process"
        )
    if serves_driver and config.tls and config.driver_client_ca is None and not driver.loopback:
        warnings.append(
            f"the Driver API on {driver} lets in whoever reaches it, and who is in can do "
            "everything: bind it to 127.0.0.1, put a firewall before it, or ask drivers for "
            "certificates with --driver-client-ca FILE"
        )
    return warnings


def notices(config: SuperLinkConfig, apis: Apis) -> list[str]:
    """List what follows from options that were not given; see `SuperLinkConfig.notices`."""
    places = [place for place in config.places(apis) if place.given is None and not place.secured]
    if not places:
        return []
    names = " and ".join(place.api for place in places)
    verb = "serve" if len(places) > 1 else "serves"
    # What makes gRPC secure makes REST so as well.
    return [
        f"{names[0].upper()}{names[1:]} {verb} this machine only (127.0.0.1 and ::1): to serve "
        f"others, give {places[0].how}"
    ]


def _in_the_clear(config: SuperLinkConfig, apis: Apis) -> Iterator[str]:
    """Warn of what other machines reach without TLS, which only --insecure allows."""
    places = [
        place for place in config.places(apis) if not place.tls and not place.address.loopback
    ]
    if places:
        names = " and ".join(f"{place.api} on {place.address}" for place in places)
        yield (
            f"--insecure: other machines reach {names}, and whoever is on the way can read and "
            f"change everything: do so in a network that you trust only, or give {_TLS}"
        )


def _certfiles_unused(config: SuperLinkConfig) -> bool:
    files = (config.ssl_certfile, config.ssl_keyfile)
    if None in files or config.over_http:
        return False
    # Flower 1.9 names the gRPC files by these options; such files are here under both names.
    return config.certificates is None or config.certificates[1:] != files


def _credentials(config: SuperLinkConfig, apis: Apis) -> Iterator[ConfigError]:
    match config.ssl_certfile, config.ssl_keyfile:
        case Path(), None:
            yield ConfigError("needs --ssl-keyfile as well", "ssl_certfile", "ssl_keyfile")
        case None, Path():
            yield ConfigError("needs --ssl-certfile as well", "ssl_keyfile", "ssl_certfile")
    leave_out = "leave out --insecure and " if config.insecure else ""
    needs_tls = f"needs TLS: {leave_out}give --certificates"
    if config.driver_client_ca is not None and not config.tls and Apis.DRIVER in apis:
        yield ConfigError(needs_tls, "driver_client_ca", "insecure", "certificates")
    if config.enable_supernode_auth and config.rest_files is None:
        yield ConfigError(needs_tls, "enable_supernode_auth", "insecure", "certificates")
    if config.require_client_authentication is None:
        return
    name = "require_client_authentication"
    if not config.tls:
        yield ConfigError(needs_tls, name, "insecure", "certificates")
    if Apis.FLEET in apis and config.fleet_api_type != "grpc-rere":
        yield ConfigError(
            f"works with --grpc-rere only, not with {config.fleet_api_type}",
            *(name, "fleet_api_type"),
        )


def _control(config: SuperLinkConfig, apis: Apis) -> Iterator[ConfigError]:
    if config.port is None:
        for option in attrs.fields(ControlOptions):
            if getattr(config, option.name) is not None:
                yield ConfigError(
                    "needs --port: runs and nodes of today's Flower are served there",
                    *(option.name, "port"),
                )
    for place in config.places(apis):
        own = place.field in ("control_address", "control_grpc_address")
        if own and not place.address.loopback and config.control_token_file is None:
            yield ConfigError(
                f"{place.address} can be reached from other machines, and without a token only "
                "this one is answered: give --control-token-file FILE, or an address on 127.0.0.1",
                *(place.field, "control_token_file"),
            )


def _one_port_twice(one: Place, other: Place) -> Iterator[ConfigError]:
    hosts = {one.address.host, other.address.host}
    overlap = len(hosts) == 1 or not hosts.isdisjoint(_WILDCARD_HOSTS)
    if one.address.port == other.address.port != 0 and overlap:
        yield ConfigError(
            f"{one.address} and {other.api}'s {other.address} are the same port: choose another "
            "for one of them",
            *(one.field, other.field, "fleet_api_type"),
        )


def _database(config: SuperLinkConfig, apis: Apis) -> Iterator[ConfigError]:
    if apis != Apis.BOTH and config.database in (MEMORY, ":memory:"):
        yield ConfigError(
            f"{config.database} cannot be shared: the Driver API and the Fleet API in processes of "
            "their own need a database that both can open. Without one, run both in one process",
            "database",
        )
    if "://" not in config.database:
        return
    # It brings all stores with it, which no other check has to wait for.
    from superlink_trio.state import why_not

    # Not named: there may be a password in it.
    refusal = why_not(config.database)
    if refusal is not None:
        yield ConfigError(refusal, "database")


def _workers(config: SuperLinkConfig) -> Iterator[ConfigError]:
    if sys.platform != "linux":
        yield ConfigError(
            f"more than one worker needs Linux, which lets processes share a port: on "
            f"{sys.platform} leave --workers out",
            "workers",
        )
    if config.database in (MEMORY, ":memory:"):
        yield ConfigError(
            f"{config.workers} workers are as many processes, and what is in the memory of one the "
            "others do not see: give --database FILE, or leave --workers out",
            *("workers", "database"),
        )
    if config.fleet_api_type == "vce":
        yield ConfigError(
            "nodes that are simulated are those of one process, which starts as many for their "
            "apps as it may (--backend-config): leave --workers or --vce out",
            *("workers", "fleet_api_type"),
        )
    if config.simulation:
        yield ConfigError(
            "runs that are simulated are served by one process: leave --workers or --simulation "
            "out",
            *("workers", "simulation"),
        )


def _superexecs(config: SuperLinkConfig) -> Iterator[ConfigError]:
    place = config.flower_place
    if place is None:
        yield ConfigError(
            "process needs the port where SuperExecs ask for runs: give --port (8000 is what "
            "Flower's programs expect)",
            *("isolation", "port"),
        )
    elif config.superexec_auth_secret_file is None and not place.address.loopback:
        yield ConfigError(
            f"whoever reaches {place.address} would be given runs, with their code and the right "
            "to speak for them: give --superexec-auth-secret-file FILE, here and to each "
            "flower-superexec, or leave --host out to give runs on this machine only",
            *("superexec_auth_secret_file", "isolation", "host"),
        )


def _simulation(config: SuperLinkConfig, apis: Apis) -> Iterator[ConfigError]:
    bring_their_app = apis is Apis.BOTH and config.port is not None
    if not config.client_app and not bring_their_app:
        yield ConfigError(
            "--vce needs the app to run: --client-app module:attribute; or --port 8000 for runs of "
            "`flwr run`, which bring theirs",
            *("client_app", "fleet_api_type"),
        )
    elif config.client_app and not _names_an_app(config.client_app):
        yield ConfigError(
            f"{config.client_app!r} names no app: write module:attribute, client:app for example",
            "client_app",
        )
    # Unlike Path.is_dir, it has an answer for a name that is too long as well.
    if not os.path.isdir(config.app_dir):
        yield ConfigError(f"{config.app_dir} is no directory", "app_dir")
    if not config.num_supernodes:
        yield ConfigError(
            "--vce needs the number of nodes: --num-supernodes N",
            *("num_supernodes", "fleet_api_type"),
        )
    elif config.num_supernodes > config.max_nodes:
        yield ConfigError(
            f"{config.num_supernodes} are more than --max-nodes {config.max_nodes} lets in",
            *("num_supernodes", "max_nodes"),
        )
    if config.backend == "ray" and not _ray_is_installed():
        yield ConfigError(
            f"the ray backend needs the package ray: {sys.executable} -m pip install 'ray>=2.52'; "
            "--backend process works without",
            *("backend", "fleet_api_type"),
        )


def _simulated_runs(config: SuperLinkConfig) -> Iterator[ConfigError]:
    if config.port is None:
        yield ConfigError(
            "is for `flwr run`: say where it connects, --port 8000", "simulation", "port"
        )
    if config.fleet_api_type == "vce":
        yield ConfigError(
            "has Flower simulate the nodes of a run, and --vce is nodes that are simulated here: "
            "leave one of them out",
            *("simulation", "fleet_api_type"),
        )


def _names_an_app(reference: str) -> bool:
    module, _, attribute = reference.partition(":")
    return all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))


def _ray_is_installed() -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("ray")
    except PackageNotFoundError:
        return False
    return True
