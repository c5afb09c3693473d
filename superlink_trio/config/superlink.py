"""What a SuperLink is told before it starts, and everything that can be wrong with it.

A value that is wrong by itself is refused when the config is made. What is wrong about values
together depends on which APIs are to run, so `SuperLinkConfig.check` finds that before anything
starts. Both report every fault at once.
"""

from __future__ import annotations

import contextlib
import enum
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import attrs

from superlink_trio.config.address import Address
from superlink_trio.config.places import Place

MEMORY = ":flwr-in-memory-state:"
"""The database name that means: keep everything in this process's memory."""

FleetApiType: TypeAlias = Literal["grpc-rere", "grpc-adapter", "rest", "vce"]
FLEET_API_TYPES = ("grpc-rere", "grpc-adapter", "rest", "vce")
Backend: TypeAlias = Literal["ray", "process"]
BACKENDS = ("ray", "process")

Files: TypeAlias = tuple[Path, Path, Path]

# The largest number that gRPC can be told; more of anything is no limit.
_MOST = 2**31 - 1

DRIVER_PORT, GRPC_FLEET_PORT, REST_FLEET_PORT = 9091, 9092, 9093

_NO_TLS = "--insecure for no encryption"
_HOW_GRPC = f"--certificates CA_CERT SERVER_CERT PRIVATE_KEY for TLS, or {_NO_TLS}"
_HOW_REST = f"--ssl-certfile FILE and --ssl-keyfile FILE for HTTPS, or {_NO_TLS}"

_WILDCARD_HOSTS = {"0.0.0.0", "::"}


class Apis(enum.Flag):
    """Which APIs a program runs."""

    DRIVER = enum.auto()
    FLEET = enum.auto()
    BOTH = DRIVER | FLEET


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


def _raise_all(faults: Sequence[ConfigError]) -> None:
    if faults:
        raise ConfigErrors("this configuration cannot run", faults)


def _flag(value: object) -> str | None:
    return None if isinstance(value, bool) else f"{value!r} is neither true nor false"


def _seconds(value: object) -> str | None:
    # Written so that NaN, which compares false with everything, is refused as well.
    if isinstance(value, float) and value >= 0:
        return None
    return f"{value!r} is no number of seconds: write 0 or more"


def _count(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return None
    return f"{value!r} is no whole number from 1 up"


def _between(least: float, most: float, what: str) -> Callable[[object], str | None]:
    kind = type(least)

    def check(value: object) -> str | None:
        if isinstance(value, int | float) and type(value) is kind and least <= value <= most:
            return None
        return f"{value!r} is no {what} that can be used: write {least} to {most}"

    return check


def _one_worker(value: object) -> str | None:
    if value == 1 and not isinstance(value, bool):
        return None
    return (
        f"must be 1, not {value!r}: a held call is woken by the process that stores what it waits "
        "for, and worker processes would not share that memory"
    )


def _address(value: object) -> str | None:
    if isinstance(value, Address):
        return None
    if not isinstance(value, str):
        return f"{value!r} is no address: write host:port"
    try:
        Address.parse(value)
    except ValueError as error:
        return str(error)
    return None


def _text(value: object) -> str | None:
    return None if isinstance(value, str) and value else f"{value!r} is no text, or an empty one"


def _file(value: object) -> str | None:
    if isinstance(value, Path) and "\0" not in str(value):
        return None
    return f"{value!r} is no path"


def _three_files(value: object) -> str | None:
    if isinstance(value, tuple) and len(value) == 3 and not any(map(_file, value)):
        return None
    return f"{value!r} must be three paths"


def _json_object(value: object) -> str | None:
    return None if isinstance(value, dict) else f"{value!r} is no JSON object"


def _one_of(choices: Sequence[str]) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        return None if value in choices else f"{value!r} is none of {', '.join(choices)}"

    return check


def _or_none(check: Callable[[object], str | None]) -> Callable[[object], str | None]:
    return lambda value: None if value is None else check(value)


# Converters pass on what they cannot read: the field's check then says what is wrong with it.


def _to_address(value: Address | str | None) -> Address | None:
    if isinstance(value, str) and _address(value) is None:
        return Address.parse(value)
    return value  # type: ignore[return-value]  # see above


def _to_seconds(value: float) -> float:
    if isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    return value


def _to_path(value: str | os.PathLike[str] | None) -> Path | None:
    if isinstance(value, (str, os.PathLike)) and value:
        return Path(value)
    return value  # type: ignore[return-value]  # see above


def _to_files(value: Sequence[str | os.PathLike[str]] | None) -> Files | None:
    if isinstance(value, (list, tuple)):
        return tuple(map(_to_path, value))  # type: ignore[return-value]  # see above
    return value  # type: ignore[return-value]  # see above


def _to_dict(value: Mapping[str, object]) -> dict[str, object]:
    if isinstance(value, Mapping):
        return dict(value)
    return value


def _default_backend_config() -> dict[str, object]:
    return {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "tensorflow": 0}


def _checked(check: Callable[[object], str | None]) -> dict[str, object]:
    return {"check": check}


@attrs.frozen(kw_only=True)
class SuperLinkConfig:
    """Everything a SuperLink can be told. The fields are the options' names.

    Raises ConfigErrors, with a part for every field that is wrong by itself.
    """

    insecure: bool = attrs.field(default=False, metadata=_checked(_flag))
    """Serve gRPC without TLS, whatever `certificates` says."""
    certificates: Files | None = attrs.field(
        default=None, converter=_to_files, metadata=_checked(_or_none(_three_files))
    )
    """PEM files for gRPC: CA certificate, server certificate, private key."""
    driver_client_ca: Path | None = attrs.field(
        default=None, converter=_to_path, metadata=_checked(_or_none(_file))
    )
    """PEM certificates of the authorities whose clients may use the Driver API."""
    database: str = attrs.field(default=MEMORY, metadata=_checked(_text))
    """Where nodes, runs and tasks are kept: `MEMORY`, or the path of an SQLite file."""
    require_client_authentication: Files | None = attrs.field(
        default=None, converter=_to_files, metadata=_checked(_or_none(_three_files))
    )
    """The nodes' public keys (CSV), then the server's private and public key (OpenSSH)."""

    driver_api_address: Address | None = attrs.field(
        default=None, converter=_to_address, metadata=_checked(_or_none(_address))
    )
    """Where drivers connect. None: port 9091, of every interface if it was said how to serve other
    machines (`certificates` or `insecure`), and of loopback if it was not."""
    fleet_api_type: FleetApiType = attrs.field(
        default="grpc-rere", metadata=_checked(_one_of(FLEET_API_TYPES))
    )
    """How nodes connect; "vce" simulates them. Both gRPC names serve both gRPC services."""
    grpc_rere_fleet_api_address: Address | None = attrs.field(
        default=None, converter=_to_address, metadata=_checked(_or_none(_address))
    )
    """Where nodes connect over gRPC. None: port 9092, otherwise like `driver_api_address`."""
    rest_fleet_api_address: Address | None = attrs.field(
        default=None, converter=_to_address, metadata=_checked(_or_none(_address))
    )
    """Where nodes connect over REST. None: port 9093, otherwise like `driver_api_address`; the two
    files below say how to serve other machines as well."""
    ssl_certfile: Path | None = attrs.field(
        default=None, converter=_to_path, metadata=_checked(_or_none(_file))
    )
    """PEM certificate for REST. None: the one in `certificates`."""
    ssl_keyfile: Path | None = attrs.field(
        default=None, converter=_to_path, metadata=_checked(_or_none(_file))
    )
    """PEM private key for REST."""
    rest_fleet_api_workers: int = attrs.field(default=1, metadata=_checked(_one_worker))
    """Processes that serve REST. Only 1 is accepted."""

    client_app: str | None = attrs.field(default=None, metadata=_checked(_or_none(_text)))
    """The app that simulated nodes run, as `module:attribute`."""
    num_supernodes: int | None = attrs.field(default=None, metadata=_checked(_or_none(_count)))
    """How many nodes are simulated."""
    backend: Backend = attrs.field(default="ray", metadata=_checked(_one_of(BACKENDS)))
    """What runs the apps of simulated nodes."""
    backend_config: dict[str, object] = attrs.field(
        factory=_default_backend_config, converter=_to_dict, metadata=_checked(_json_object)
    )
    """Settings of the backend, as `--backend-config` has them."""
    app_dir: Path = attrs.field(default=Path(), converter=_to_path, metadata=_checked(_file))
    """Put on the import path before `client_app` is loaded."""

    hold: float = attrs.field(default=20.0, converter=_to_seconds, metadata=_checked(_seconds))
    """For how many seconds a node's pull waits for a task. 0 answers at once."""
    driver_hold: float = attrs.field(
        default=5.0, converter=_to_seconds, metadata=_checked(_seconds)
    )
    """For how many seconds a driver's pull waits for results. 0 answers at once."""
    grace: float = attrs.field(default=10.0, converter=_to_seconds, metadata=_checked(_seconds))
    """How many seconds calls in flight have to finish when the SuperLink stops."""
    readmit: bool = attrs.field(default=True, metadata=_checked(_flag))
    """Take nodes back that a SuperLink before this one had registered."""

    max_message_size: int = attrs.field(
        default=512 * 1024**2, metadata=_checked(_between(64 * 1024, _MOST, "number of bytes"))
    )
    """Bytes of one message, on every port and both ways; Flower's clients have this default too."""
    max_header_size: int = attrs.field(
        default=16 * 1024, metadata=_checked(_between(1024, _MOST, "number of bytes"))
    )
    """Bytes of a call's header fields."""
    request_timeout: float = attrs.field(
        default=20.0,
        converter=_to_seconds,
        metadata=_checked(_between(0.1, 86_400.0, "number of seconds")),
    )
    """How many seconds a handshake or a request's head may take; over REST its body as well, not
    counting the time that it takes at 4 KiB a second."""
    max_connections: int = attrs.field(
        default=16_384, metadata=_checked(_between(1, _MOST, "number of connections"))
    )
    """Connections to one API."""
    max_calls: int = attrs.field(
        default=32_768, metadata=_checked(_between(1, 2**30, "number of calls"))
    )
    """Calls under way on one API, held ones included."""
    max_nodes: int = attrs.field(
        default=100_000, metadata=_checked(_between(1, _MOST, "number of nodes"))
    )
    """Registered nodes."""
    max_tasks_per_node: int = attrs.field(default=10_000, metadata=_checked(_count))
    """Tasks of one node that have no answer; anonymous nodes count as one."""
    max_stored_size: int | None = attrs.field(default=None, metadata=_checked(_or_none(_count)))
    """Bytes of payloads and tasks. None: half of the memory, or of the disk that the database is
    on. Tasks may fill half of it."""

    def __attrs_post_init__(self) -> None:
        _raise_all(
            [
                ConfigError(problem, field.name)
                for field in attrs.fields(type(self))
                if (problem := problem_with(field.name, getattr(self, field.name)))
            ]
        )

    @property
    def driver_place(self) -> Place:
        """Where the Driver API is to listen."""
        return Place(
            api="the Driver API",
            field="driver_api_address",
            given=self.driver_api_address,
            port=DRIVER_PORT,
            secured=self._grpc_secured,
            how=_HOW_GRPC,
        )

    @property
    def fleet_place(self) -> Place | None:
        """Where the chosen Fleet API is to listen; None for a simulation, which has no port."""
        match self.fleet_api_type:
            case "vce":
                return None
            case "rest":
                return Place(
                    api="the Fleet API",
                    field="rest_fleet_api_address",
                    given=self.rest_fleet_api_address,
                    port=REST_FLEET_PORT,
                    secured=self.insecure or self.rest_files is not None,
                    how=_HOW_REST,
                )
            case _:
                return Place(
                    api="the Fleet API",
                    field="grpc_rere_fleet_api_address",
                    given=self.grpc_rere_fleet_api_address,
                    port=GRPC_FLEET_PORT,
                    secured=self._grpc_secured,
                    how=_HOW_GRPC,
                )

    def places(self, apis: Apis) -> list[Place]:
        """Where these APIs are to listen."""
        places = [
            self.driver_place if Apis.DRIVER in apis else None,
            self.fleet_place if Apis.FLEET in apis else None,
        ]
        return [place for place in places if place is not None]

    @property
    def _grpc_secured(self) -> bool:
        return self.insecure or self.certificates is not None

    @property
    def tls(self) -> bool:
        """Whether the gRPC ports speak TLS."""
        return self.certificates is not None and not self.insecure

    @property
    def rest_files(self) -> tuple[Path, Path] | None:
        """Certificate and key for REST: its own, or else those for gRPC; None for plain HTTP."""
        if self.ssl_certfile and self.ssl_keyfile:
            return self.ssl_certfile, self.ssl_keyfile
        if self.certificates and self.tls:
            return self.certificates[1], self.certificates[2]
        return None

    def faults(self, apis: Apis) -> list[ConfigError]:
        """What keeps these APIs from running with this config."""
        return [fault for rule in _RULES if (fault := rule(self, apis))] + [
            ConfigError(f"{what} not in this version yet; {instead}", name)
            for name, asked_for, what, instead in _NOT_YET
            if asked_for(self)
        ]

    def check(self, apis: Apis) -> None:
        """Raise ConfigErrors if there is anything in `faults`."""
        _raise_all(self.faults(apis))

    def warnings(self, apis: Apis) -> list[str]:
        """What is not as somebody might think, though it does not keep the APIs from running.

        Options are spelled as on the command line.
        """
        warnings = []
        driver = self.driver_place.address
        if self.insecure and self.certificates and self._serves_grpc(apis):
            warnings.append(
                "--insecure wins: gRPC is served without TLS, the certificates are not used"
            )
        if self._certfiles_unused(apis):
            warnings.append(
                "--ssl-certfile and --ssl-keyfile are not used: they rule the REST Fleet API only"
            )
        if (
            Apis.DRIVER in apis
            and self.tls
            and self.driver_client_ca is None
            and not driver.loopback
        ):
            warnings.append(
                f"the Driver API on {driver} lets in whoever reaches it, and who is in can do "
                "everything: bind it to 127.0.0.1, put a firewall before it, or ask drivers for "
                "certificates with --driver-client-ca FILE"
            )
        return warnings

    def notices(self, apis: Apis) -> list[str]:
        """What follows from options that were not given, for whoever expects something else."""
        places = [place for place in self.places(apis) if place.withdrawn]
        if not places:
            return []
        names = " and ".join(place.api for place in places)
        verb = "serve" if len(places) > 1 else "serves"
        # What makes gRPC secure makes REST so as well.
        return [
            f"{names[0].upper()}{names[1:]} {verb} this machine only (127.0.0.1 and ::1): to serve "
            f"others, give {places[0].how}"
        ]

    def _certfiles_unused(self, apis: Apis) -> bool:
        files = (self.ssl_certfile, self.ssl_keyfile)
        if None in files or Apis.FLEET not in apis or self.fleet_api_type == "rest":
            return False
        # Flower 1.9 names the gRPC files by these options; such files are here under both names.
        return self.certificates is None or self.certificates[1:] != files

    def _serves_grpc(self, apis: Apis) -> bool:
        return Apis.DRIVER in apis or self.fleet_api_type in ("grpc-rere", "grpc-adapter")


def problem_with(name: str, value: object) -> str | None:
    """Say what is wrong with a field's value by itself, or None."""
    check: Callable[[object], str | None] = attrs.fields_dict(SuperLinkConfig)[name].metadata[
        "check"
    ]
    return check(value)


def _driver_secured(config: SuperLinkConfig, apis: Apis) -> ConfigError | None:
    return _secured(config.driver_place) if Apis.DRIVER in apis else None


def _fleet_secured(config: SuperLinkConfig, apis: Apis) -> ConfigError | None:
    place = config.fleet_place
    return _secured(place) if place and Apis.FLEET in apis else None


def _secured(place: Place) -> ConfigError | None:
    if not place.exposed:
        return None
    return ConfigError(
        f"{place.address} can be reached from other machines: say how to serve them, by "
        f"{place.how}; or leave the address out, to serve this machine only",
        place.field,
        "insecure",
        "certificates",
        *(("ssl_certfile", "ssl_keyfile") if place.field.startswith("rest") else ()),
    )


def _certificate_and_key(config: SuperLinkConfig, _: Apis) -> ConfigError | None:
    match config.ssl_certfile, config.ssl_keyfile:
        case Path(), None:
            return ConfigError("needs --ssl-keyfile as well", "ssl_certfile", "ssl_keyfile")
        case None, Path():
            return ConfigError("needs --ssl-certfile as well", "ssl_keyfile", "ssl_certfile")
    return None


def _client_ca_over_tls(config: SuperLinkConfig, apis: Apis) -> ConfigError | None:
    if config.driver_client_ca is None or config.tls or Apis.DRIVER not in apis:
        return None
    return ConfigError(_needs_tls(config), "driver_client_ca", "insecure", "certificates")


def _needs_tls(config: SuperLinkConfig) -> str:
    if config.insecure:
        return "needs TLS: leave out --insecure and give --certificates"
    return "needs TLS: give --certificates"


def _authentication_over_tls(config: SuperLinkConfig, apis: Apis) -> ConfigError | None:
    if config.require_client_authentication is None or config.tls:
        return None
    return ConfigError(
        _needs_tls(config), "require_client_authentication", "insecure", "certificates"
    )


def _authentication_over_grpc(config: SuperLinkConfig, apis: Apis) -> ConfigError | None:
    if (
        config.require_client_authentication is None
        or Apis.FLEET not in apis
        or config.fleet_api_type == "grpc-rere"
    ):
        return None
    return ConfigError(
        f"works with --grpc-rere only, not with {config.fleet_api_type}",
        "require_client_authentication",
        "fleet_api_type",
    )


def _addresses_apart(config: SuperLinkConfig, apis: Apis) -> ConfigError | None:
    if apis != Apis.BOTH or config.fleet_place is None:
        return None
    driver, fleet = config.driver_place.address, config.fleet_place.address
    if driver.port != fleet.port or driver.port == 0:
        return None
    if driver.host != fleet.host and _WILDCARD_HOSTS.isdisjoint({driver.host, fleet.host}):
        return None
    return ConfigError(
        f"{driver} and the Fleet API's {fleet} are the same port: choose another for one of them",
        "driver_api_address",
        config.fleet_place.field,
        "fleet_api_type",
    )


def _shared_database(config: SuperLinkConfig, apis: Apis) -> ConfigError | None:
    if apis == Apis.BOTH or config.database not in (MEMORY, ":memory:"):
        return None
    return ConfigError(
        f"{config.database} cannot be shared: the Driver API and the Fleet API in processes of "
        "their own need a database that both can open. Without one, run both in one process",
        "database",
    )


def _simulates(config: SuperLinkConfig, apis: Apis) -> bool:
    return Apis.FLEET in apis and config.fleet_api_type == "vce"


def _app_to_simulate(config: SuperLinkConfig, apis: Apis) -> ConfigError | None:
    if not _simulates(config, apis) or config.client_app:
        return None
    return ConfigError(
        "--vce needs the app to run: --client-app module:attribute", "client_app", "fleet_api_type"
    )


def _app_named(config: SuperLinkConfig, apis: Apis) -> ConfigError | None:
    if not _simulates(config, apis) or not config.client_app:
        return None
    module, _, attribute = config.client_app.partition(":")
    if all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        return None
    return ConfigError(
        f"{config.client_app!r} names no app: write module:attribute, client:app for example",
        "client_app",
    )


def _app_directory(config: SuperLinkConfig, apis: Apis) -> ConfigError | None:
    if not _simulates(config, apis) or config.app_dir.is_dir():
        return None
    return ConfigError(f"{config.app_dir} is no directory", "app_dir")


def _nodes_to_simulate(config: SuperLinkConfig, apis: Apis) -> ConfigError | None:
    if not _simulates(config, apis) or config.num_supernodes:
        return None
    return ConfigError(
        "--vce needs the number of nodes: --num-supernodes N", "num_supernodes", "fleet_api_type"
    )


def _ray_installed(config: SuperLinkConfig, apis: Apis) -> ConfigError | None:
    if not _simulates(config, apis) or config.backend != "ray":
        return None
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("ray")
    except PackageNotFoundError:
        return ConfigError(
            f"the ray backend needs the package ray: {sys.executable} -m pip install 'ray>=2.52'; "
            "--backend process works without",
            "backend",
            "fleet_api_type",
        )
    return None


_RULES: tuple[Callable[[SuperLinkConfig, Apis], ConfigError | None], ...] = (
    _driver_secured,
    _fleet_secured,
    _certificate_and_key,
    _client_ca_over_tls,
    _authentication_over_tls,
    _authentication_over_grpc,
    _addresses_apart,
    _shared_database,
    _app_to_simulate,
    _app_named,
    _app_directory,
    _nodes_to_simulate,
    _ray_installed,
)

_NOT_YET: tuple[tuple[str, Callable[[SuperLinkConfig], bool], str, str], ...] = (
    (
        "database",
        lambda config: config.database.startswith(("postgresql://", "postgres://")),
        "PostgreSQL is",
        f"use a file, or {MEMORY} (default)",
    ),
)
