from __future__ import annotations

import importlib.metadata
import os
import re
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superlink_trio.cli.arguments import read
from superlink_trio.cli.programs import DRIVER_API, FLEET_API, SUPERLINK, Program
from superlink_trio.config import (
    OPTIONS,
    Address,
    Apis,
    ConfigErrors,
    Section,
    Settings,
    SuperLinkConfig,
    build,
    option,
    table,
)
from superlink_trio.config.kinds import COUNT, within

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "configuration.md"
SIMULATION = ["--insecure", "--vce", "--client-app", "client:app", "--num-supernodes", "1"]
SIMULATION += ["--backend", "process"]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("SUPERLINK_"):
            monkeypatch.delenv(name)


def given_words(*words: str, program: Program = SUPERLINK) -> Settings:
    settings = read(program, words)
    build(settings, program.apis)
    return settings


def config_of(*words: str) -> SuperLinkConfig:
    settings = read(SUPERLINK, words)
    config = build(settings, SUPERLINK.apis)
    assert settings.faults == []
    return config


def faults_of(*words: str) -> list[str]:
    return given_words(*words).faults


def test_options_become_fields() -> None:
    config = config_of(
        *("--insecure", "--driver-api-address", "[::1]:0", "--hold=0", "--driver-hold", "1.5"),
        *("--grace", "2", "--no-readmit", "--grpc-rere-fleet-api-address", "localhost:9000"),
        *("--num-supernodes", "3", "--backend-config", '{"a": 1}', "--app-dir", "apps"),
    )
    assert config == SuperLinkConfig(
        insecure=True,
        driver_api_address="[::1]:0",
        hold=0,
        driver_hold=1.5,
        grace=2,
        readmit=False,
        grpc_rere_fleet_api_address="localhost:9000",
        num_supernodes=3,
        backend_config={"a": 1},
        app_dir="apps",
    )


def test_sizes_have_units() -> None:
    config = config_of(
        *("--insecure", "--max-message-size", "64MiB", "--max-stored-size", "1.5 GB"),
        *("--max-header-size", "8192"),
    )
    assert config.max_message_size == 64 * 1024 * 1024
    assert config.max_stored_size == 1_500_000_000
    assert config.max_header_size == 8192


@pytest.mark.parametrize("size", ["much", "12 parsecs", "-1", "1e9", "", "1.MiB", "64M", "1" * 500])
def test_what_is_no_size_is_a_fault(size: str) -> None:
    [fault] = faults_of("--insecure", f"--max-message-size={size}")
    assert f"--max-message-size: {size!r} is no size: write bytes, or a number with KiB" in fault


def test_a_size_in_a_file_is_a_number_or_text(tmp_path: Path) -> None:
    file = tmp_path / "superlink.toml"
    file.write_text("insecure = true\nmax-message-size = 1048576\nmax-stored-size = '2GiB'\n")
    config = config_of("--config", str(file))
    assert (config.max_message_size, config.max_stored_size) == (1024**2, 2 * 1024**3)
    file.write_text("insecure = true\nmax-stored-size = 1.5\n")
    assert "1.5 is no size" in faults_of("--config", str(file))[0]


def test_nothing_given_is_the_default() -> None:
    assert config_of("--insecure") == SuperLinkConfig(insecure=True)


def test_the_command_line_wins_then_the_environment_then_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "superlink.toml"
    file.write_text("insecure = true\nhold = 1\ndriver-hold = 1\ngrace = 1\nreadmit = false\n")
    monkeypatch.setenv("SUPERLINK_CONFIG", str(file))
    monkeypatch.setenv("SUPERLINK_HOLD", "2")
    monkeypatch.setenv("SUPERLINK_GRACE", "2")
    config = config_of("--grace", "3", "--readmit")
    assert (config.driver_hold, config.hold, config.grace) == (1, 2, 3)
    assert config.readmit is True


def test_the_environment_reads_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "INSECURE": "Yes",
        "CERTIFICATES": "ca.pem 'my server.pem' key.pem",
        "DRIVER_API_ADDRESS": "localhost:1",
        "NUM_SUPERNODES": "4",
        "BACKEND_CONFIG": "{}",
        "READMIT": "off",
        "HOLD": "",
    }
    for name, text in variables.items():
        monkeypatch.setenv(f"SUPERLINK_{name}", text)
    config = config_of()
    assert config.insecure
    assert config.certificates == (Path("ca.pem"), Path("my server.pem"), Path("key.pem"))
    assert config.driver_api_address == Address("localhost", 1)
    assert (config.num_supernodes, config.backend_config, config.readmit) == (4, {}, False)
    assert config.hold == 20, "an empty variable is no variable"


def test_a_file_reads_every_kind(tmp_path: Path) -> None:
    file = tmp_path / "superlink.toml"
    file.write_text(
        "insecure = true\ncertificates = ['a', 'b', 'c']\nnum_supernodes = 4\nhold = 3\n"
        "driver-api-address = 'localhost:1'\n[backend-config.client_resources]\nnum_cpus = 2\n"
    )
    config = config_of("--config", str(file))
    assert config.certificates == (Path("a"), Path("b"), Path("c"))
    assert config.driver_api_address == Address("localhost", 1)
    assert (config.num_supernodes, config.hold) == (4, 3)
    assert config.backend_config == {"client_resources": {"num_cpus": 2}}


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--certificates", "a", "b"], "argument --certificates: expected 3 arguments"),
        (["--hold"], "argument --hold: expected 1 argument"),
        (["--insecure=yes"], "argument --insecure/--no-insecure: ignored explicit argument 'yes'"),
        (["--insecur"], "--insecur: no such option; did you mean --insecure?"),
        (["--insecure", "--xyzzy", "1"], "--xyzzy: no such option"),
        (["--insecure", "here"], "here: unexpected, options begin with --"),
        (["--insecure", "fleet-api"], "fleet-api: a command comes first, before every option"),
        (["--insecure", "--backend-config", "[]"], "--backend-config: '[]' is no JSON object"),
        (
            ["--insecure", "--num-supernodes", "0"],
            "--num-supernodes: 0 is no whole number from 1 up",
        ),
        (
            ["--insecure", "--workers", "0"],
            "--workers: 0 is no number of processes that can be used: write 1 to 256",
        ),
        (["--insecure", "--workers", "2"], "--workers: 2 workers are as many processes, and what"),
        (["--insecure", "--hold", "nan"], "--hold: nan is no number of seconds: write 0 or more"),
        (["--insecure", "--config", "gone.toml"], "gone.toml: No such file or directory"),
        (["--insecure", "--log-level", "loud"], "--log-level: 'loud' is none of debug, info"),
        (["--insecure", "--app-dir", ""], "--app-dir: '' is no path"),
        (
            ["--insecure", "--driver-api-address", "0.0.0.0:9092"],
            "--driver-api-address: 0.0.0.0:9092 and the Fleet API's 0.0.0.0:9092 are the same port",
        ),
        (
            [*SIMULATION, "--client-app", "app"],
            "--client-app: 'app' names no app: write module:attribute, client:app for example",
        ),
        ([*SIMULATION, "--app-dir", "gone"], "--app-dir: gone is no directory"),
    ],
)
def test_one_fault_is_one_line(words: list[str], fault: str) -> None:
    [told] = faults_of(*words)
    assert told.startswith(fault)


def test_ray_without_its_extra_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    needed = (
        f"the ray backend needs the package ray: {sys.executable} -m pip install 'ray>=2.52'; "
        "--backend process works without"
    )
    assert faults_of(*SIMULATION) == []
    assert faults_of(*SIMULATION[:-2]) == [f"--vce: {needed}"]
    assert faults_of(*SIMULATION[:-2], "--backend", "ray") == [f"--backend: {needed}"]


def test_a_usage_fault_does_not_hide_the_other_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERLINK_GRACE", "long")
    assert faults_of("--certificates", "a") == [
        "argument --certificates: expected 3 arguments",
        "SUPERLINK_GRACE: 'long' is no number of seconds",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("hold =", "is no TOML: "),
        (
            "hold = 1\nmax-message-size = 64MiB # enough\n",
            '(at line 2, column 22); put it in quotes: max-message-size = "64MiB"',
        ),
        ("max_stored_size = 1.5 GB", '; put it in quotes: max_stored_size = "1.5 GB"'),
        ("database = state.db", '; put it in quotes: database = "state.db"'),
        (
            "driver-api-address = 127.0.0.1:9091",
            '; put it in quotes: driver-api-address = "127.0.0.1:9091"',
        ),
        ("[backend-config", "is no TOML: "),
        ("hold = 'a'", ": hold: 'a' is no number of seconds"),
        ("hold = true", ": hold: True is no number of seconds"),
        ("num-supernodes = 1.5", ": num-supernodes: 1.5 is no whole number"),
        ("readmit = 'no'", ": readmit: 'no' is neither true nor false"),
        ("database = 5", ": database: 5 is no text: put it in quotes"),
        ("certificates = 'a b c'", ": certificates: 'a b c' must be 3 paths"),
        ("driver-hold = 1\ndriver_hold = 1", ": driver_hold: is there already, as driver-hold"),
        ("config = 'other.toml'", ": config: no such option"),
        ("no-readmit = true", ": no-readmit: no such option; did you mean readmit?"),
        ("[server]\nhold = 1", ": server: no such option"),
    ],
)
def test_a_fault_in_a_file_names_it_and_the_key(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "superlink.toml"
    file.write_text(text)
    [told] = faults_of("--insecure", "--config", str(file))
    assert told.startswith(str(file))
    assert fault in told


def test_an_unknown_variable_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERLINK_HODL", "3")
    # What Kubernetes tells every container beside services called superlink and superlink-fleet.
    monkeypatch.setenv("SUPERLINK_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("SUPERLINK_PORT", "tcp://10.0.0.1:9091")
    monkeypatch.setenv("SUPERLINK_FLEET_PORT_9092_TCP_ADDR", "10.0.0.1")
    settings = given_words()
    assert settings.faults == []
    assert settings.warnings == ["SUPERLINK_HODL: no such variable; did you mean SUPERLINK_HOLD?"]


@given(
    st.lists(
        st.sampled_from([option.flag for option in OPTIONS.options.values()])
        | st.sampled_from(
            ["--", "-1", "driver-api", "a:1", "nan", "{}", "--hold=", "--no-insecure"]
        )
        | st.text(max_size=5),
        max_size=8,
    ).filter(lambda words: not {"-h", "-V", "--config"} & set(words))
)
def test_any_command_line_is_a_config_or_faults(words: list[str]) -> None:
    settings = given_words(*words)
    assert all(settings.faults)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ([], "grpc-rere"),
        (["--grpc-rere"], "grpc-rere"),
        (["--rest"], "rest"),
        (["--vce"], "vce"),
        (["--fleet-api-type", "rest"], "rest"),
        (["--fleet-api-type", "grpc-adapter"], "grpc-adapter"),
        (["--fleet-api-type", "rest", "--rest"], "rest"),
    ],
)
def test_the_fleet_api_has_two_names(words: list[str], kind: str) -> None:
    settings = given_words("--insecure", *words)
    assert (settings.get("fleet_api_type") or "grpc-rere") == kind


@pytest.mark.parametrize(
    "words", [["--rest", "--vce"], ["--grpc-rere", "--fleet-api-type", "grpc-adapter"]]
)
def test_one_fleet_api_at_a_time(words: list[str]) -> None:
    [told] = faults_of("--insecure", *words)
    assert words[0] in told
    assert words[1] in told
    assert told.endswith("disagree: leave one out")


def test_a_fleet_api_on_the_command_line_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERLINK_REST", "true")
    assert config_of("--insecure", "--grpc-rere").fleet_api_type == "grpc-rere"
    monkeypatch.setenv("SUPERLINK_REST", "false")
    assert config_of("--insecure").fleet_api_type == "grpc-rere"
    monkeypatch.setenv("SUPERLINK_REST", "true")
    assert config_of("--insecure", "--fleet-api-type=grpc-adapter").fleet_api_type == "grpc-adapter"


def test_flowers_name_of_the_control_address() -> None:
    config = config_of("--port", "8000", "--control-api-address", "127.0.0.1:9093")
    assert str(config.control_grpc_address) == "127.0.0.1:9093"
    both = "--control-api-address", "127.0.0.1:1", "--control-grpc-address", "127.0.0.1:2"
    assert given_words("--port", "8000", *both).faults


def test_one_fleet_api_address_for_whichever_is_chosen() -> None:
    config = config_of("--insecure", "--fleet-api-address", "localhost:1")
    assert config.grpc_rere_fleet_api_address == Address("localhost", 1)
    rest = given_words("--insecure", "--rest", "--fleet-api-address", "localhost:1")
    assert rest.get("rest_fleet_api_address") == Address("localhost", 1)
    assert rest.get("grpc_rere_fleet_api_address") is None
    vce = given_words("--insecure", "--vce", "--fleet-api-address", "localhost:1")
    assert "--fleet-api-address: not used, a simulation has no port" in vce.warnings
    [told] = faults_of(
        *("--insecure", "--fleet-api-address", "a:1", "--grpc-rere-fleet-api-address", "b:1")
    )
    assert "disagree" in told


@pytest.mark.parametrize("name", ["workers", "fleet-api-num-workers", "rest-fleet-api-workers"])
def test_workers_by_any_of_flowers_names(name: str) -> None:
    assert config_of("--insecure", f"--{name}", "1").workers == 1
    assert config_of("--insecure", f"--{name}", "4", "--database", "state.db").workers == 4
    [told] = faults_of("--insecure", f"--{name}", "4")
    assert told.startswith(f"--{name}: 4 workers are as many processes")
    assert "give --database FILE" in told


def test_a_storage_directory_is_accepted_and_said_to_be_unused() -> None:
    settings = given_words("--storage-dir", "fabs")
    assert settings.faults == []
    assert settings.warnings == ["--storage-dir: not used, fabs are kept in the database"]


SSL = ("--ssl-certfile", "cert", "--ssl-keyfile", "key")


def test_three_ssl_files_are_the_certificates() -> None:
    config = config_of("--insecure", *SSL, "--ssl-ca-certfile", "ca")
    assert config.certificates == (Path("ca"), Path("cert"), Path("key"))
    assert (config.ssl_certfile, config.ssl_keyfile) == (Path("cert"), Path("key"))


def test_certificates_by_their_own_name_come_first() -> None:
    words = ("--insecure", *SSL, "--ssl-ca-certfile", "ca", "--certificates", "1", "2", "3")
    settings = given_words(*words)
    assert settings.faults == []
    assert settings.get("certificates") == (Path("1"), Path("2"), Path("3"))
    assert "--ssl-ca-certfile: not used, the certificates name a CA" in settings.warnings


def test_an_ssl_ca_file_needs_the_others() -> None:
    assert faults_of("--ssl-ca-certfile", "ca") == [
        "--ssl-ca-certfile: needs --ssl-certfile and --ssl-keyfile as well"
    ]
    assert faults_of("--ssl-ca-certfile", "ca", "--ssl-certfile", "cert") == [
        "--ssl-ca-certfile: needs --ssl-keyfile as well"
    ]


AUTH = {
    "--auth-list-public-keys": "keys.csv",
    "--auth-superlink-private-key": "private",
    "--auth-superlink-public-key": "public",
}


def words_of(values: Mapping[str, str]) -> list[str]:
    return [word for pair in values.items() for word in pair]


def test_three_auth_files_require_authentication() -> None:
    settings = given_words(*words_of(AUTH), "--certificates", "1", "2", "3")
    assert settings.get("require_client_authentication") == tuple(map(Path, AUTH.values()))


@pytest.mark.parametrize("left_out", AUTH)
def test_auth_files_come_together(left_out: str) -> None:
    some = {flag: file for flag, file in AUTH.items() if flag != left_out}
    [told] = faults_of("--insecure", *words_of(some))
    assert told == f"{next(iter(some))}: needs {left_out} as well"


def test_each_side_has_its_own_options() -> None:
    fleet_only = given_words("--rest", program=DRIVER_API)
    assert any(fault.startswith("--rest: no such option") for fault in fleet_only.faults)
    driver_only = given_words("--driver-hold", "1", program=FLEET_API)
    assert any(fault.startswith("--driver-hold: no such option") for fault in driver_only.faults)


def test_one_file_can_serve_both_sides(tmp_path: Path) -> None:
    file = tmp_path / "superlink.toml"
    file.write_text("insecure = true\nhold = 1\ndriver-hold = 1\n")
    for program in (DRIVER_API, FLEET_API):
        [told] = given_words("--config", str(file), program=program).faults
        assert "cannot be shared" in told


@pytest.mark.parametrize("program", [SUPERLINK, DRIVER_API, FLEET_API])
def test_help_all_has_every_option_with_its_default_and_variable(
    program: Program, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(SystemExit) as caught:
        read(program, ["--help-all"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    for known in OPTIONS.options.values():
        assert (f"{known.variable}]" in told) is program.has(known)
        assert not program.has(known) or known.default in told


PAGE = runpy.run_path(str(ROOT / "scripts" / "configuration-page"))


@attrs.frozen(kw_only=True)
class WithOneMore(SuperLinkConfig):
    """A config with an option that is declared here and nowhere else."""

    max_naps: int = attrs.field(
        default=7,
        metadata=option(
            *(Section.LIMITS, Apis.FLEET, within(COUNT, 1, 99, "number of naps")),
            "naps that a node may take",
        ),
    )


def test_an_option_is_declared_once_and_found_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    extended = table(WithOneMore)

    def naps(*argv: str) -> object:
        settings = read(SUPERLINK, argv, extended)
        config = build(settings, Apis.BOTH)
        assert settings.faults == []
        assert isinstance(config, WithOneMore)
        return config.max_naps

    assert WithOneMore().max_naps == 7
    with pytest.raises(ConfigErrors, match="configuration"):
        WithOneMore(max_naps=100)

    file = tmp_path / "superlink.toml"
    file.write_text("max-naps = 8\n")
    assert naps() == 7
    assert naps("--config", str(file)) == 8
    monkeypatch.setenv("SUPERLINK_MAX_NAPS", "9")
    assert naps("--config", str(file)) == 9
    assert naps("--config", str(file), "--max-naps", "10") == 10
    refused = read(SUPERLINK, ["--max-naps", "0"], extended)
    build(refused, Apis.BOTH)
    assert refused.faults == [
        "--max-naps: 0 is no number of naps that can be used: write 1 to 99",
    ]
    assert read(DRIVER_API, ["--max-naps", "1"], extended).faults

    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(SystemExit):
        read(SUPERLINK, ["--help-all"], extended)
    told = capsys.readouterr().out
    assert "naps that a node may take [default: 7; SUPERLINK_MAX_NAPS]" in told
    written = PAGE["rewritten"](DOCUMENT.read_text(), extended).splitlines()
    assert (
        "| `--max-naps N` | `SUPERLINK_MAX_NAPS` | `7` | naps that a node may take |  |" in written
    )
    assert [line for line in written if "MAX_NAPS" not in line] == (
        DOCUMENT.read_text().splitlines()
    )


def test_the_file_in_the_document_works(tmp_path: Path) -> None:
    [example] = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    file = tmp_path / "superlink.toml"
    file.write_text(example)
    settings = given_words("--config", str(file))
    assert (settings.faults, settings.warnings) == ([], [])
    assert len(settings.given) >= 5
