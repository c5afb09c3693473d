from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superlink_trio import state
from superlink_trio.config import Apis, ConfigError, ConfigErrors, SuperLinkConfig
from superlink_trio.config.address import Address
from superlink_trio.config.options import options_of

FILES = ("ca.pem", "server.pem", "server.key")
CERTFILES: Any = {"ssl_certfile": "c", "ssl_keyfile": "k"}
KEYS = ("keys.csv", "server", "server.pub")
LOOPBACK: Any = {"driver_api_address": "[::1]:1", "grpc_rere_fleet_api_address": "[::1]:2"}
HTTP: Any = {"host": "0.0.0.0", "port": 8000}

anything = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.lists(st.text())
    | st.tuples(st.text(), st.text(), st.text())
    | st.dictionaries(st.text(), st.integers())
)


def problems(config: SuperLinkConfig, apis: Apis = Apis.BOTH) -> dict[str, str]:
    return {fault.fields[0]: fault.problem for fault in config.faults(apis)}


def listening(config: SuperLinkConfig, apis: Apis = Apis.BOTH) -> list[str]:
    return [str(place.address) for place in config.places(apis)]


def test_every_field_is_documented() -> None:
    options = {option.name: option for option in options_of(SuperLinkConfig)}
    assert options.keys() == {field.name for field in attrs.fields(SuperLinkConfig)}
    assert len({option.help for option in options.values()} - {""}) == len(options)


def test_the_defaults_are_those_of_the_reference() -> None:
    config = SuperLinkConfig(insecure=True)
    assert listening(config) == ["0.0.0.0:9091", "0.0.0.0:9092"]
    assert listening(attrs.evolve(config, fleet_api_type="rest"))[1] == "0.0.0.0:9093"
    assert config.database == ":flwr-in-memory-state:"
    assert (config.hold, config.driver_hold, config.grace) == (20, 5, 10)
    assert config.backend_config == {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "tensorflow": 0,
    }
    config.check(Apis.BOTH)


def test_text_and_numbers_become_what_they_stand_for() -> None:
    config = SuperLinkConfig(
        driver_api_address="[::1]:0", certificates=list(FILES), ssl_certfile="a.pem", hold=3
    )
    assert config.driver_api_address == Address("::1", 0)
    assert config.certificates == tuple(map(Path, FILES))
    assert config.ssl_certfile == Path("a.pem")
    assert type(config.hold) is float


def test_every_field_that_is_wrong_by_itself_is_reported() -> None:
    wrong: dict[str, Any] = {
        "driver_api_address": "127.0.0.1",
        "grpc_rere_fleet_api_address": 9092,
        "fleet_api_type": "carrier-pigeon",
        "hold": math.nan,
        "driver_hold": "5",
        "grace": -1,
        "workers": 0,
        "num_supernodes": 0,
        "certificates": ("ca.pem",),
        "app_dir": "",
        "readmit": "no",
        "backend_config": "{}",
    }
    with pytest.raises(ConfigErrors) as caught:
        SuperLinkConfig(**wrong)
    assert {error.fields for error in caught.value.faults} == {(name,) for name in wrong}
    told = {error.fields[0]: str(error) for error in caught.value.faults}
    assert told["grace"] == "grace: -1.0 is no number of seconds: write 0 or more"
    assert "names no port: write host:port" in told["driver_api_address"]
    assert "is no number of processes" in told["workers"]


@given(st.sampled_from([field.name for field in attrs.fields(SuperLinkConfig)]), anything)
def test_any_value_makes_a_config_or_a_fault_of_its_field(name: str, value: Any) -> None:
    values = {"insecure": True} | {name: value}
    try:
        config = SuperLinkConfig(**values)
    except ConfigErrors as errors:
        assert [error.fields for error in errors.faults] == [(name,)]  # noqa: PT017 (either is right)
    else:
        for apis in (Apis.DRIVER, Apis.FLEET, Apis.BOTH):
            assert all(isinstance(fault, ConfigError) for fault in config.faults(apis))
            config.warnings(apis)


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("max_message_size", 65_535, 65_536),
        ("max_message_size", 2**31, 2**31 - 1),
        ("max_header_size", 1023, 1024),
        ("request_timeout", 0, 1),
        ("request_timeout", math.inf, 86_400),
        ("max_connections", 0, 1),
        ("max_calls", True, 1),
        ("max_nodes", 0, 1),
        ("max_tasks_per_node", 0, 1),
        ("max_stored_size", 0, 1),
        ("max_stored_size", "1GiB", None),
    ],
)
def test_a_limit_is_one_that_can_be_kept(name: str, wrong: Any, right: Any) -> None:
    assert getattr(SuperLinkConfig(**{name: right}), name) == right
    with pytest.raises(ConfigErrors) as caught:
        SuperLinkConfig(**{name: wrong})
    assert [error.fields for error in caught.value.faults] == [(name,)]


def test_a_part_of_the_errors_is_still_config_errors() -> None:
    errors = ConfigErrors("all", [ConfigError("a", "hold"), ConfigError("b", "grace")])
    part = errors.subgroup(lambda error: "hold" in str(error))
    assert isinstance(part, ConfigErrors)
    assert [str(error) for error in part.faults] == ["hold: a"]


def test_checking_raises_all_there_is() -> None:
    config = SuperLinkConfig(
        driver_api_address="0.0.0.0:0",
        ssl_keyfile="key.pem",
        fleet_api_type="vce",
        backend="process",
        app_dir="gone",
        database="postgresql://host:port/d%b",
    )
    with pytest.raises(ConfigErrors) as caught:
        config.check(Apis.BOTH)
    assert {error.fields[0] for error in caught.value.faults} == {
        "driver_api_address",
        "ssl_keyfile",
        "client_app",
        "num_supernodes",
        "app_dir",
        "database",
    }


HERE = ["localhost:9091", "localhost:9092"]
EVERYWHERE = ["0.0.0.0:9091", "0.0.0.0:9092"]
OWN: dict[str, Any] = {"ssl_certfile": "c", "ssl_keyfile": "k"}


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ({}, HERE),
        ({"insecure": True}, EVERYWHERE),
        ({"certificates": FILES}, EVERYWHERE),
        ({"driver_api_address": "[::1]:1"}, ["[::1]:1", "localhost:9092"]),
        ({"grpc_rere_fleet_api_address": "127.0.0.1:0"}, ["localhost:9091", "127.0.0.1:0"]),
        ({"fleet_api_type": "grpc-adapter"}, HERE),
        ({"fleet_api_type": "rest"}, ["localhost:9091", "localhost:9093"]),
        ({"fleet_api_type": "rest", "certificates": FILES}, ["0.0.0.0:9091", "0.0.0.0:9093"]),
        ({"fleet_api_type": "rest", **OWN}, ["localhost:9091", "0.0.0.0:9093"]),
        (OWN, HERE),
        ({"fleet_api_type": "vce"}, HERE[:1]),
    ],
)
def test_other_machines_are_served_once_it_is_said_how(
    values: dict[str, Any], places: list[str]
) -> None:
    config = SuperLinkConfig(**values)
    assert listening(config) == places
    assert listening(config, Apis.DRIVER) == places[:1]
    assert listening(config, Apis.FLEET) == places[1:]
    assert {"driver_api_address", "insecure"}.isdisjoint(problems(config))
    here = [place for place in places if place.startswith("localhost")]
    assert len(config.notices(Apis.BOTH)) == bool(here)


def test_who_is_not_served_is_said_in_one_line() -> None:
    how = "--certificates CA_CERT SERVER_CERT PRIVATE_KEY for TLS, or --insecure for no encryption"
    config = SuperLinkConfig()
    assert config.notices(Apis.BOTH) == [
        "The Driver API and the Fleet API serve this machine only (127.0.0.1 and ::1): to serve "
        f"others, give {how}"
    ]
    assert config.notices(Apis.FLEET) == [
        f"The Fleet API serves this machine only (127.0.0.1 and ::1): to serve others, give {how}"
    ]
    [rest] = SuperLinkConfig(fleet_api_type="rest").notices(Apis.FLEET)
    assert "give --ssl-certfile FILE and --ssl-keyfile FILE for HTTPS, or --insecure" in rest


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "superlink.example.org"])
@pytest.mark.parametrize("kind", ["grpc-rere", "rest"])
def test_an_address_that_others_reach_needs_a_word(host: str, kind: Any) -> None:
    values: dict[str, Any] = {
        field: f"{host}:{port}"
        for port, field in enumerate(
            ("driver_api_address", "grpc_rere_fleet_api_address", "rest_fleet_api_address"), 1
        )
    }
    found = problems(SuperLinkConfig(fleet_api_type=kind, **values))
    chosen = "rest_fleet_api_address" if kind == "rest" else "grpc_rere_fleet_api_address"
    assert found.keys() == {"driver_api_address", chosen}
    for field, problem in found.items():
        assert problem.startswith(f"{values[field]} can be reached from other machines: say how")
        assert "--insecure for no encryption; or leave the address out" in problem
    assert ("--ssl-certfile FILE" in found[chosen]) is (kind == "rest")
    assert problems(SuperLinkConfig(fleet_api_type=kind, insecure=True, **values)) == {}


def test_insecure_wins_with_a_warning() -> None:
    config = SuperLinkConfig(insecure=True, certificates=FILES)
    assert not config.tls
    assert problems(config) == {}
    [_, warning] = config.warnings(Apis.BOTH)
    assert "--insecure wins" in warning
    rest = SuperLinkConfig(insecure=True, certificates=FILES, fleet_api_type="rest")
    assert len(rest.warnings(Apis.FLEET)) == 1, "no gRPC port is open"


@pytest.mark.parametrize(
    ("values", "apis", "reached"),
    [
        ({}, Apis.BOTH, "the Driver API on 0.0.0.0:9091 and the Fleet API on 0.0.0.0:9092"),
        ({}, Apis.FLEET, "the Fleet API on 0.0.0.0:9092"),
        ({"fleet_api_type": "rest"}, Apis.FLEET, "the Fleet API on 0.0.0.0:9093"),
        ({"driver_api_address": "[::1]:1"}, Apis.BOTH, "the Fleet API on 0.0.0.0:9092"),
        ({"driver_api_address": "[::1]:1"}, Apis.DRIVER, None),
        ({"fleet_api_type": "rest", **CERTFILES}, Apis.FLEET, None),
        ({"insecure": False}, Apis.BOTH, None),
        ({**LOOPBACK, **HTTP}, Apis.BOTH, "the HTTP API on 0.0.0.0:8000"),
        ({**LOOPBACK, **HTTP, **CERTFILES}, Apis.BOTH, None),
    ],
)
def test_what_others_reach_without_tls_is_warned_of_once(
    values: dict[str, Any], apis: Apis, reached: str | None
) -> None:
    told = SuperLinkConfig(**{"insecure": True, **values}).warnings(apis)
    if reached is None:
        assert told == []
    else:
        [warning] = told
        assert warning.startswith(f"--insecure: other machines reach {reached}, and whoever")


def test_ports_for_operators_go_with_runs_and_nodes() -> None:
    config = SuperLinkConfig(control_address="[::1]:3", control_grpc_address="127.0.0.1:4")
    found = problems(config)
    assert found.keys() == {"control_address", "control_grpc_address"}
    assert "needs --port" in found["control_address"]
    served = attrs.evolve(config, port=8000)
    assert problems(served) == {}
    assert listening(served)[2:] == ["127.0.0.1:8000", "[::1]:3", "127.0.0.1:4"]
    twice = attrs.evolve(served, port=4)
    assert "are the same port" in problems(twice)["host"]


@pytest.mark.parametrize("field", ["control_address", "control_grpc_address"])
def test_a_port_for_operators_elsewhere_asks_for_a_token(field: str) -> None:
    config = SuperLinkConfig(port=8000, insecure=True, **{field: "0.0.0.0:3"})  # type: ignore[arg-type]  # one of two
    assert "give --control-token-file FILE" in problems(config)[field]
    with_tokens = attrs.evolve(config, control_token_file=Path("tokens"))
    assert problems(with_tokens) == {}
    secured = attrs.evolve(with_tokens, insecure=False)
    assert "say how to serve them" in problems(secured)[field]


@pytest.mark.parametrize(("given", "missing"), [("certfile", "keyfile"), ("keyfile", "certfile")])
def test_a_certificate_needs_its_key(given: str, missing: str) -> None:
    config = SuperLinkConfig(insecure=True, **{f"ssl_{given}": Path("file")})  # type: ignore[arg-type]  # one of two
    assert problems(config) == {f"ssl_{given}": f"needs --ssl-{missing} as well"}


def test_rest_files_without_rest_are_a_warning() -> None:
    config = SuperLinkConfig(insecure=True, **CERTFILES)
    [_, warning] = config.warnings(Apis.BOTH)
    assert "not used" in warning
    assert not any("not used" in told for told in config.warnings(Apis.DRIVER))


def test_authentication_needs_tls() -> None:
    def problem(**values: Any) -> str | None:
        config = SuperLinkConfig(require_client_authentication=KEYS, **values)
        faults = [fault for fault in config.faults(Apis.BOTH) if "needs TLS" in fault.problem]
        return faults[0].problem if faults else None

    assert problem(insecure=True) == "needs TLS: leave out --insecure and give --certificates"
    assert problem() == "needs TLS: give --certificates"
    assert problem(certificates=FILES) is None


def test_driver_certificates_need_tls() -> None:
    def problem(apis: Apis = Apis.BOTH, **values: Any) -> str | None:
        return problems(SuperLinkConfig(driver_client_ca="ca.pem", **values), apis).get(
            "driver_client_ca"
        )

    assert problem(insecure=True) == "needs TLS: leave out --insecure and give --certificates"
    assert problem() == "needs TLS: give --certificates"
    assert problem(certificates=FILES) is None
    assert problem(Apis.FLEET, insecure=True) is None


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        ({"certificates": FILES}, True),
        ({"certificates": FILES, "driver_api_address": "192.0.2.1:1"}, True),
        ({"certificates": FILES, "driver_api_address": "driver.example.org:1"}, True),
        ({"certificates": FILES, "driver_api_address": "127.0.0.1:1"}, False),
        ({"certificates": FILES, "driver_api_address": "[::1]:1"}, False),
        ({"certificates": FILES, "driver_api_address": "localhost:1"}, False),
        ({"certificates": FILES, "driver_client_ca": "ca.pem"}, False),
        ({"insecure": True}, False),
    ],
)
def test_a_driver_api_that_is_open_to_all_is_warned_of(
    values: dict[str, Any], warned: bool
) -> None:
    config = SuperLinkConfig(**values)
    told = [text for text in config.warnings(Apis.BOTH) if "lets in whoever reaches it" in text]
    assert len(told) == warned
    assert not any("lets in" in text for text in config.warnings(Apis.FLEET))


def test_rest_has_its_own_files_or_those_of_grpc() -> None:
    def files(**values: Any) -> tuple[Path, Path] | None:
        return SuperLinkConfig(fleet_api_type="rest", **values).rest_files

    own = {"ssl_certfile": "c", "ssl_keyfile": "k"}
    assert files(insecure=True, **own) == (Path("c"), Path("k"))
    assert files(certificates=FILES, **own) == (Path("c"), Path("k"))
    assert files(certificates=FILES) == (Path("server.pem"), Path("server.key"))
    assert files(certificates=FILES, insecure=True) is None


@pytest.mark.parametrize("kind", ["rest", "vce", "grpc-adapter"])
def test_authentication_needs_grpc_rere(kind: Any) -> None:
    config = SuperLinkConfig(
        certificates=FILES, require_client_authentication=KEYS, fleet_api_type=kind
    )
    told = [fault.problem for fault in config.faults(Apis.BOTH)]
    assert f"works with --grpc-rere only, not with {kind}" in told


@pytest.mark.parametrize(
    ("driver", "fleet", "clash"),
    [
        ("127.0.0.1:9000", "127.0.0.1:9000", True),
        ("127.0.0.1:9000", "0.0.0.0:9000", True),
        ("[::]:9000", "127.0.0.1:9000", True),
        ("127.0.0.1:9000", "127.0.0.2:9000", False),
        ("127.0.0.1:9000", "127.0.0.1:9001", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
    ],
)
def test_two_apis_need_two_ports(driver: str, fleet: str, clash: bool) -> None:
    config = SuperLinkConfig(
        insecure=True, driver_api_address=driver, grpc_rere_fleet_api_address=fleet
    )
    assert ("driver_api_address" in problems(config, Apis.BOTH)) is clash
    assert "driver_api_address" not in problems(config, Apis.DRIVER)


def test_only_the_chosen_fleet_api_takes_a_port() -> None:
    values: dict[str, Any] = {"insecure": True, "driver_api_address": "0.0.0.0:9093"}
    assert "driver_api_address" not in problems(SuperLinkConfig(**values))
    rest = SuperLinkConfig(fleet_api_type="rest", **values)
    assert "driver_api_address" in problems(rest)
    assert SuperLinkConfig(fleet_api_type="vce").fleet_place is None


@pytest.mark.parametrize("apis", [Apis.DRIVER, Apis.FLEET])
def test_memory_is_not_shared_between_processes(apis: Apis) -> None:
    for database in (":flwr-in-memory-state:", ":memory:"):
        config = SuperLinkConfig(insecure=True, database=database)
        assert f"{database} cannot be shared" in problems(config, apis)["database"]
    shared = SuperLinkConfig(insecure=True, database="state.db")
    assert "database" not in problems(shared, apis)


@pytest.mark.parametrize("url", ["postgresql://u:se%cret@host/db", "postgres://host/db?secret=1"])
def test_a_url_that_is_none_is_told_without_a_password(url: str) -> None:
    found = problems(SuperLinkConfig(insecure=True, database=url))["database"]
    assert "write postgresql://USER:PASSWORD@HOST:PORT/NAME" in found
    assert "secret" not in found
    assert "se%cret" not in found


def test_postgres_needs_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "find_spec", lambda name: None)
    config = SuperLinkConfig(insecure=True, database="postgresql://host/db")
    assert "-m pip install 'psycopg[binary]>=3.2.2'" in problems(config)["database"]


def simulation(**changes: Any) -> SuperLinkConfig:
    values = {"client_app": "client:app", "num_supernodes": 2, "backend": "process"}
    return SuperLinkConfig(insecure=True, fleet_api_type="vce", **{**values, **changes})


def test_a_simulation_needs_an_app_and_nodes() -> None:
    assert problems(simulation()) == {}
    assert "--client-app module:attribute" in problems(simulation(client_app=None))["client_app"]
    assert problems(simulation(client_app=None, port=8000)) == {}, "runs bring their app"
    assert "client_app" in problems(simulation(client_app=None, port=8000), Apis.FLEET)
    missing = problems(simulation(num_supernodes=None))
    assert "--num-supernodes N" in missing["num_supernodes"]
    many = problems(simulation(num_supernodes=6, max_nodes=5))
    assert many["num_supernodes"] == "6 are more than --max-nodes 5 lets in"
    unused = simulation(client_app=None, num_supernodes=None, database="state.db")
    assert problems(unused, Apis.DRIVER) == {}


def test_who_serves_todays_flower_with_workers_is_said() -> None:
    served = SuperLinkConfig(database="state.db", workers=2, port=8000)
    [told] = served.warnings(Apis.BOTH)
    assert "the first alone serves Flower 1.23 and later (--port) and the Fleet API" in told
    assert served.warnings(Apis.DRIVER) == []
    over_postgresql = attrs.evolve(served, database="postgresql://db.example/superlink")
    assert over_postgresql.warnings(Apis.BOTH) == []
    assert attrs.evolve(served, workers=1).warnings(Apis.BOTH) == []


def test_what_more_than_one_worker_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(**changes: Any) -> str:
        config = SuperLinkConfig(**{"insecure": True, "workers": 2, **changes})
        return "; ".join(fault.problem for fault in config.faults(Apis.BOTH))

    assert told(database="state.db") == ""
    assert told(database="state.db", port=8000) == ""
    assert "the others do not see: give --database FILE" in told()
    assert "the others do not see" in told(database=":memory:")
    simulated = told(database="state.db", port=8000, fleet_api_type="vce", num_supernodes=2)
    assert "leave --workers or --vce out" in simulated
    assert "leave --workers or --simulation out" in told(
        database="state.db", port=8000, simulation=True
    )
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "needs Linux" in told(database="state.db")


def test_what_a_simulation_of_runs_needs() -> None:
    assert problems(SuperLinkConfig(insecure=True, simulation=True, port=8000)) == {}
    alone = problems(SuperLinkConfig(insecure=True, simulation=True))
    assert "--port 8000" in alone["simulation"]
    assert "leave one of them out" in problems(simulation(simulation=True, port=8000))["simulation"]


@pytest.mark.parametrize("name", ["client.apps:app", "client:apps.app", "клиент:app"])
def test_an_app_has_a_module_and_an_attribute(name: str) -> None:
    assert problems(simulation(client_app=name)) == {}


@pytest.mark.parametrize("name", ["client", "client:", ":app", "client:app:x", "a..b:app", "a/b:c"])
def test_what_names_no_app_is_refused(name: str) -> None:
    assert problems(simulation(client_app=name)) == {
        "client_app": f"{name!r} names no app: write module:attribute, client:app for example"
    }


def test_apps_lie_in_a_directory(tmp_path: Path) -> None:
    assert problems(simulation(app_dir=tmp_path)) == {}
    gone = tmp_path / "gone"
    too_long = tmp_path / ("a" * 300)
    for directory in (gone, too_long):
        assert problems(simulation(app_dir=directory)) == {
            "app_dir": f"{directory} is no directory"
        }


def test_a_password_in_the_database_is_not_told() -> None:
    config = SuperLinkConfig(insecure=True, database="postgresql://user:secret@host/db")
    assert not any("secret" in str(fault) for fault in config.faults(Apis.BOTH))


PROCESS: dict[str, Any] = {"isolation": "process"}


def test_superexecs_need_a_port_where_they_ask() -> None:
    assert "give --port (8000" in problems(SuperLinkConfig(**PROCESS))["isolation"]
    assert "isolation" not in problems(SuperLinkConfig(**PROCESS), Apis.FLEET)
    assert not problems(SuperLinkConfig(**PROCESS, port=8000))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "superlink.example.org"])
def test_superexecs_of_other_machines_need_a_secret(host: str) -> None:
    values: dict[str, Any] = {**PROCESS, "port": 8000, "host": host, "insecure": True}
    found = problems(SuperLinkConfig(**values))
    address = str(Address(host, 8000))
    assert found.keys() == {"superexec_auth_secret_file"}
    assert found["superexec_auth_secret_file"].startswith(f"whoever reaches {address} would be")
    assert not problems(SuperLinkConfig(**values, superexec_auth_secret_file="secret"))
    assert not problems(SuperLinkConfig(**{**values, "isolation": "subprocess"}))


def test_a_secret_that_nobody_is_asked_for_is_told() -> None:
    config = SuperLinkConfig(port=8000, superexec_auth_secret_file="secret")
    [warning] = config.warnings(Apis.BOTH)
    assert warning.startswith("--superexec-auth-secret-file is not used")
    assert not attrs.evolve(config, isolation="process").warnings(Apis.BOTH)
