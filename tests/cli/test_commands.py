"""The commands as a person calls them: what is printed, and the exit status."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import superlink_trio
from superlink_trio import cli
from superlink_trio.cli.programs import COMMANDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("SUPERLINK_"):
            monkeypatch.delenv(name)


def test_every_fault_is_listed_and_nothing_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "superlink.toml"
    file.write_text('driver-hold = "5"\nhodl = 3\n')
    monkeypatch.setenv("SUPERLINK_HOLD", "abc")
    words = ["--config", str(file), "--grace", "-1", "--driver-api-address", "127.0.0.1"]
    words += ["--fleet-api-address", "0.0.0.0:9092"]
    assert cli.main([*words, "--ssl-certfile", "c.pem"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "superlink-trio: error: --driver-api-address: '127.0.0.1' names no port: write host:port, "
        "for example 127.0.0.1:9091",
        "superlink-trio: error: SUPERLINK_HOLD: 'abc' is no number of seconds",
        f"superlink-trio: error: {file}: driver-hold: '5' is no number of seconds",
        f"superlink-trio: error: {file}: hodl: no such option; did you mean hold?",
        "superlink-trio: error: --grace: -1.0 is no number of seconds: write 0 or more",
        "superlink-trio: error: --fleet-api-address: 0.0.0.0:9092 can be reached from other "
        "machines: say how to serve them, by --certificates CA_CERT SERVER_CERT PRIVATE_KEY for "
        "TLS, or --insecure for no encryption; or leave the address out, to serve this machine "
        "only",
        "superlink-trio: error: --ssl-certfile: needs --ssl-keyfile as well",
        "superlink-trio: nothing was started; --help-all lists the options",
    ]


@pytest.mark.parametrize("side", ["driver-api", "fleet-api"])
def test_a_side_alone_needs_a_shared_database(
    side: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([side, "--insecure"]) == 2
    as_command = capsys.readouterr().err
    assert f"superlink-trio {side}: error: :flwr-in-memory-state: cannot be shared" in as_command
    monkeypatch.setattr(sys, "argv", ["superlink-trio-" + side, "--insecure"])
    assert {"driver-api": cli.driver_api, "fleet-api": cli.fleet_api}[side]() == 2
    assert capsys.readouterr().err == as_command


def python(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_module_runs_as_a_program() -> None:
    version = python("-m", "superlink_trio", "--version")
    assert (version.returncode, version.stdout) == (
        0,
        f"superlink-trio {superlink_trio.__version__}\n",
    )
    wrong = python("-m", "superlink_trio", "--driver-api-address", "0.0.0.0:0")
    assert wrong.returncode == 2
    assert "--insecure" in wrong.stderr


@pytest.mark.parametrize(
    "script",
    [
        "import superlink_trio, superlink_trio.cli",
        "from superlink_trio import cli; cli.main(['--hold', 'x'])",
        "from superlink_trio import cli; cli.main(['--help'])",
        "from superlink_trio import cli; cli.main(['--help-all'])",
        "from superlink_trio import cli; cli.main(['--print-config'])",
        "from superlink_trio import cli; cli.main(['inspct'])",
    ],
)
def test_what_is_slow_to_import_waits(script: str) -> None:
    slow = {"grpc", "numpy", "trio", "trio_asyncio", "google.protobuf", "asyncio"}
    told = python(
        "-c",
        f"import atexit, sys; atexit.register(lambda: print('SLOW', {slow} & set(sys.modules)))\n"
        f"{script}",
    )
    assert told.stdout.splitlines()[-1] == "SLOW set()", told


@pytest.mark.parametrize("words", [[], ["driver-api"], ["fleet-api"], ["check"]])
@pytest.mark.parametrize("columns", ["40", "80", "300"])
def test_help_fits_one_screen(
    words: list[str],
    columns: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "--help"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    if columns != "40":
        assert len(lines) <= 40
        assert max(map(len, lines)) <= 80
    assert any("--help-all" in line for line in lines)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    told = capsys.readouterr().out
    for name, about in COMMANDS.items():
        assert f"  {name} " in told
        assert about in told
    assert 24 <= len(told.splitlines()) <= 40
    assert "  superlink-trio --insecure --database state.db" in told


def test_help_shows_what_matters_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)
    assert {"--config", "--database", "--insecure", "--certificates", "--rest"} <= set(shown)
    assert {"--driver-api-address", "--grpc-rere-fleet-api-address"} <= set(shown)
    assert {"--vce", "--admin-address"} <= set(shown)
    assert len(shown) <= 12


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "help"])
def test_help_explains_a_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["help", name])
    assert caught.value.code == 0
    as_command = capsys.readouterr().out
    assert as_command.startswith(f"usage: superlink-trio {name} ")
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    assert capsys.readouterr().out == as_command


def test_help_alone_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for words in (["help"], ["-h"], ["--help"], ["help", "help"]):
        with pytest.raises(SystemExit):
            cli.main(words)
        told.append(capsys.readouterr().out)
    assert told == told[:1] * 4


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["inspct", "state.db"], "inspct: no such command; did you mean inspect?"),
        (["fleet_api"], "fleet_api: no such command; did you mean fleet-api?"),
        (["xyzzy"], "xyzzy: no such command"),
        (["help", "chek"], "chek: no such command; did you mean check?"),
        ([""], ": no such command"),
    ],
)
def test_what_is_no_command_says_which_was_meant(
    words: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"superlink-trio: error: {fault}",
        "superlink-trio: nothing was started; --help lists the commands",
    ]


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version_has_two_names(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([flag])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"superlink-trio {superlink_trio.__version__}\n"
