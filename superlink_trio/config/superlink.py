"""The settings of a SuperLink.

A value that is wrong by itself is refused when the config is made. What is wrong about values
together depends on which APIs are to run: `SuperLinkConfig.check` finds that before anything
starts. Both report every fault at once.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import attrs
from attrs import field

from superlink_trio.config import checks, kinds, places
from superlink_trio.config.address import Address
from superlink_trio.config.checks import MEMORY, ConfigError, raise_all
from superlink_trio.config.control import ControlOptions
from superlink_trio.config.kinds import Files
from superlink_trio.config.limits import Limits
from superlink_trio.config.options import Apis, Section, option, problem_with
from superlink_trio.config.places import Place

FleetApiType: TypeAlias = Literal["grpc-rere", "grpc-adapter", "rest", "vce"]
Backend: TypeAlias = Literal["ray", "process"]

# What the options under one heading have in common.
_general = partial(option, Section.GENERAL, Apis.BOTH)
_security = partial(option, Section.SECURITY, Apis.BOTH)
_driver = partial(option, Section.DRIVER, Apis.DRIVER)
_fleet = partial(option, Section.FLEET, Apis.FLEET)
_rest = partial(option, Section.REST)
_current = partial(option, Section.CURRENT, Apis.BOTH)
_limit = partial(option, Section.LIMITS)
_admin = partial(option, Section.ADMIN, Apis.BOTH)
_simulation = partial(option, Section.SIMULATION, Apis.FLEET)
_flower = partial(option, Section.FLOWER, Apis.FLEET)


def _everywhere_or_here(port: int) -> str:
    return f"0.0.0.0:{port}; localhost:{port} without TLS and --insecure"


@attrs.frozen(kw_only=True)
class SuperLinkConfig(ControlOptions, Limits):
    """The settings of a SuperLink. The fields are the options' names; each says what it is for.

    Raises ConfigErrors, with a part for every field that is wrong by itself.
    """

    database: str = field(
        default=MEMORY,
        metadata=_general(
            attrs.evolve(kinds.text("DATABASE"), path="file"),
            "where things are kept: a file, or postgresql://...",
            common=True,
        ),
    )
    """`MEMORY`, the path of an SQLite file, or `postgresql://…`."""
    workers: int = field(
        default=1,
        metadata=_general(
            kinds.within(kinds.COUNT, 1, 256, "number of processes"),
            "processes that serve; over a file one serves --port",
            common=True,
        ),
    )
    """More than one are for the program: `run_superlink` and its like are one process."""

    insecure: bool = field(
        default=False,
        metadata=_security(
            kinds.FLAG, "serve without TLS, whatever certificates there are", common=True
        ),
    )
    certificates: Files | None = field(
        default=None,
        converter=kinds.to_files,
        metadata=_security(
            kinds.files("CA_CERT", "SERVER_CERT", "PRIVATE_KEY"),
            "PEM files for the gRPC ports, and for REST unless it has its own",
            common=True,
        ),
    )
    require_client_authentication: Files | None = field(
        default=None,
        converter=kinds.to_files,
        metadata=_security(
            kinds.files("CLIENT_KEYS", "SERVER_PRIVATE_KEY", "SERVER_PUBLIC_KEY"),
            "admit only nodes whose public key is listed: a CSV file of OpenSSH public keys, then "
            "the server's two OpenSSH key files",
        ),
    )

    driver_api_address: Address | None = field(
        default=None,
        converter=kinds.to_address,
        metadata=_driver(
            kinds.ADDRESS,
            "where drivers connect",
            shown_default=_everywhere_or_here(places.DRIVER_PORT),
            common=True,
        ),
    )
    """None: every interface if it was said how to serve other machines (`certificates` or
    `insecure`), and loopback if it was not."""
    driver_client_ca: Path | None = field(
        default=None,
        converter=kinds.to_path,
        metadata=_driver(
            kinds.FILE,
            "let in only drivers with a certificate that an authority in this PEM file signed",
        ),
    )
    driver_hold: float = field(
        default=5.0,
        converter=kinds.to_seconds,
        metadata=_driver(
            kinds.SECONDS,
            "how long a driver's pull waits for all its results, while one follows the other; "
            "0 answers at once",
            reloads=True,
        ),
    )

    fleet_api_type: FleetApiType = field(
        default="grpc-rere",
        metadata=_flower(
            kinds.choice("grpc-rere", "grpc-adapter", "rest", "vce"),
            "like --grpc-rere, --rest and --vce; both gRPC names serve both gRPC services",
        ),
    )
    """How nodes connect; "vce" simulates them."""
    grpc_rere_fleet_api_address: Address | None = field(
        default=None,
        converter=kinds.to_address,
        metadata=_fleet(
            kinds.ADDRESS,
            "where nodes connect over gRPC",
            shown_default=_everywhere_or_here(places.GRPC_FLEET_PORT),
            common=True,
        ),
    )
    """None: like `driver_api_address`."""
    hold: float = field(
        default=20.0,
        converter=kinds.to_seconds,
        metadata=_fleet(
            kinds.SECONDS,
            "how long a node's pull waits for a task, and a SuperExec for a run; 0 answers at once",
            reloads=True,
        ),
    )
    readmit: bool = field(
        default=True,
        metadata=_fleet(
            kinds.FLAG, "take nodes back that a SuperLink before this one had registered"
        ),
    )
    rest_fleet_api_address: Address | None = field(
        default=None,
        converter=kinds.to_address,
        metadata=_rest(
            Apis.FLEET,
            kinds.ADDRESS,
            "where nodes connect over REST",
            shown_default=_everywhere_or_here(places.REST_FLEET_PORT),
        ),
    )
    """None: like `driver_api_address`; the two files below say how to serve others as well."""
    ssl_certfile: Path | None = field(
        default=None,
        converter=kinds.to_path,
        metadata=_rest(Apis.BOTH, kinds.FILE, "PEM certificate for REST"),
    )
    """None: the one in `certificates`, and its key."""
    ssl_keyfile: Path | None = field(
        default=None,
        converter=kinds.to_path,
        metadata=_rest(Apis.BOTH, kinds.FILE, "PEM private key for REST"),
    )

    host: str = field(
        default="127.0.0.1",
        metadata=_current(kinds.text("HOST"), "where nodes and `flwr` of Flower 1.35 on connect"),
    )
    port: int | None = field(
        default=None,
        metadata=_current(
            kinds.within(kinds.COUNT, 0, 65_535, "port"),
            "serve Flower 1.35 and later on this port too: 8000 is what its programs expect",
            shown_default="not served",
            common=True,
        ),
    )
    """None: only Flower 1.8 to 1.11 is served."""
    enable_supernode_auth: bool = field(
        default=False,
        metadata=_current(
            kinds.FLAG, "admit only nodes whose keys were given with `flwr supernode register`"
        ),
    )
    message_hold: float = field(
        default=600.0,
        converter=kinds.to_seconds,
        metadata=_current(
            kinds.SECONDS,
            "how long the pull of a `flower-supernode` waits for a message; 0 answers at once",
            reloads=True,
        ),
    )
    isolation: Literal["subprocess", "process"] = field(
        default="subprocess",
        metadata=_current(
            kinds.choice("subprocess", "process"),
            "what starts the process of a run: this SuperLink, or a `flower-superexec` of yours",
        ),
    )
    superexec_auth_secret_file: Path | None = field(
        default=None,
        converter=kinds.to_path,
        metadata=_current(
            kinds.FILE,
            "a secret, which a `flower-superexec` has to have to be given runs",
        ),
    )
    simulation: bool = field(
        default=False,
        metadata=_current(kinds.FLAG, "have `flwr-simulation` run each run, with nodes of its own"),
    )
    max_server_apps: int = field(
        default=16,
        metadata=_current(
            kinds.within(kinds.COUNT, 1, 10_000, "number of processes"),
            "runs that this SuperLink has under way at the same time; others wait",
        ),
    )

    max_nodes: int = field(
        default=100_000,
        metadata=_limit(
            Apis.FLEET,
            kinds.within(kinds.COUNT, 1, kinds.MOST, "number of nodes"),
            "registered nodes; those offline give way",
            reloads=True,
        ),
    )
    max_tasks_per_node: int = field(
        default=10_000,
        metadata=_limit(
            Apis.DRIVER,
            kinds.COUNT,
            "tasks of one node without an answer; anonymous nodes count as one",
            reloads=True,
        ),
    )
    max_stored_size: int | None = field(
        default=None,
        metadata=_limit(
            Apis.BOTH,
            kinds.SIZE,
            "payloads and tasks that are kept; answers may fill all of it, tasks half",
            reloads=True,
            shown_default="half of the memory, or of the disk",
        ),
    )

    admin_address: Address | None = field(
        default=None,
        converter=kinds.to_address,
        metadata=_admin(
            kinds.ADDRESS,
            "health, metrics and a page, in plain HTTP",
            shown_default="not served",
            common=True,
        ),
    )
    """None: not served."""

    client_app: str | None = field(
        default=None,
        metadata=_simulation(
            kinds.text("MODULE:ATTRIBUTE"),
            "the app that simulated nodes run, client:app for example",
        ),
    )
    num_supernodes: int | None = field(
        default=None,
        metadata=_simulation(
            kinds.COUNT, "how many nodes to simulate; with --simulation, of each run (2)"
        ),
    )
    backend: Backend = field(
        default="ray", metadata=_simulation(kinds.choice("ray", "process"), "what runs the apps")
    )
    backend_config: dict[str, object] = field(
        factory=lambda: {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "tensorflow": 0},
        converter=kinds.to_dict,
        metadata=_simulation(kinds.TABLE, "settings of the backend"),
    )
    app_dir: Path = field(
        default=Path(),
        converter=kinds.to_path,
        metadata=_simulation(
            kinds.DIRECTORY,
            "put on the import path to find the app",
            shown_default="the working directory",
        ),
    )

    def __attrs_post_init__(self) -> None:
        raise_all(
            [
                ConfigError(problem, each.name)
                for each in attrs.fields(type(self))
                if (problem := problem_with(each, getattr(self, each.name)))
            ]
        )

    @property
    def driver_place(self) -> Place:
        """Where the Driver API is to listen."""
        return places.driver(self)

    @property
    def fleet_place(self) -> Place | None:
        """Where the chosen Fleet API is to listen; None for a simulation, which has no port."""
        return places.fleet(self)

    @property
    def flower_place(self) -> Place | None:
        """Where Flower 1.35 and later is to be served over HTTP; None: not at all."""
        return places.flower(self)

    @property
    def control_place(self) -> Place | None:
        """Where the Control API has a port of its own over HTTP; None: it has none."""
        return places.control(self)

    @property
    def control_grpc_place(self) -> Place | None:
        """Where the Control API is to be served over gRPC; None: not at all."""
        return places.control_grpc(self)

    def places(self, apis: Apis) -> list[Place]:
        """Where these APIs are to listen."""
        return places.of(self, apis)

    @property
    def over_http(self) -> bool:
        """Whether anything but the admin surface is served over HTTP."""
        return self.fleet_api_type == "rest" or self.port is not None

    @property
    def tls(self) -> bool:
        """Whether the gRPC ports speak TLS."""
        return self.certificates is not None and not self.insecure

    @property
    def fleet_tls(self) -> bool:
        """Whether the Fleet API's port speaks TLS."""
        return self.rest_files is not None if self.fleet_api_type == "rest" else self.tls

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
        return list(checks.faults(self, apis))

    def check(self, apis: Apis) -> None:
        """Raise ConfigErrors if there is anything in `faults`."""
        raise_all(self.faults(apis))

    def warnings(self, apis: Apis) -> list[str]:
        """What is not as somebody might think, though it does not keep the APIs from running.

        Options are spelled as on the command line.
        """
        return checks.warnings(self, apis)

    def notices(self, apis: Apis) -> list[str]:
        """What follows from options that were not given, for whoever expects something else."""
        return checks.notices(self, apis)
