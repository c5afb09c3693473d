"""`--print-config`: every value and where it is from, as a file that can be used again."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superlink_trio import cli
from superlink_trio.cli.arguments import read
from superlink_trio.cli.effective import effective
from superlink_trio.cli.programs import SUPERLINK
from superlink_trio.config import OPTIONS, Apis, SuperLinkConfig, build


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("SUPERLINK_"):
            monkeypatch.delenv(name)


def shown(*words: str) -> tuple[SuperLinkConfig, str]:
    settings = read(SUPERLINK, words)
    config = build(settings, Apis.BOTH)
    return config, effective(OPTIONS.options.values(), settings, config)


def test_every_value_says_where_it_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "superlink.toml"
    file.write_text("insecure = true\nhold = 3\ngrace = 1\n")
    monkeypatch.setenv("SUPERLINK_GRACE", "2")
    words = ["--config", str(file), "--max-stored-size", "2GiB", "--rest", "--log-level", "debug"]
    assert cli.main([*words, "--print-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in (
        f'# config = "{file}"  # command line: --config',
        'log-level = "debug"  # command line: --log-level',
        'log-format = "text"  # default',
        "grace = 2.0  # environment variable SUPERLINK_GRACE",
        f"insecure = true  # file {file}",
        f"hold = 3.0  # file {file}",
        'max-stored-size = "2GiB"  # command line: --max-stored-size',
        'fleet-api-type = "rest"  # command line: --rest',
        "driver-hold = 5.0  # default",
        "# admin-address  # default: not served",
        "# client-app  # default: none",
    ):
        assert line in lines


def test_every_option_of_the_config_is_there() -> None:
    _, text = shown()
    keys = {line.removeprefix("# ").split()[0] for line in text.splitlines() if line}
    wanted = {field.name.replace("_", "-") for field in attrs.fields(SuperLinkConfig)}
    assert wanted | {"config", "log-level", "log-format"} <= keys


def test_each_side_shows_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = str(tmp_path / "state.db")
    assert cli.main(["driver-api", "--database", database, "--print-config"]) == 0
    told = capsys.readouterr().out
    assert "driver-hold = " in told
    assert "\nhold = " not in told


names = st.text(min_size=1).filter(lambda text: "\0" not in text and not text.startswith("-"))


@given(
    path=names,
    app=names,
    seconds=st.floats(0, allow_nan=False),
    json=st.sampled_from(["{}", '{"a": "it\'s", "b": [1, null, {"c": "\\u00e4\\u0007"}]}']),
)
def test_what_is_shown_is_a_file_that_means_the_same(
    tmp_path_factory: pytest.TempPathFactory, path: str, app: str, seconds: float, json: str
) -> None:
    words = ["--insecure", f"--database={path}", f"--client-app={app}", f"--hold={seconds!r}"]
    words += [f"--backend-config={json}", "--certificates", "a b", path, "'c' \"d\""]
    words += ["--max-message-size=70000", "--no-readmit", "--driver-api-address=[::1]:0"]
    config, text = shown(*words)
    file = tmp_path_factory.mktemp("shown") / "superlink.toml"
    file.write_text(text, "utf-8", newline="")
    again, _ = shown("--config", str(file))
    assert again == config


def test_a_password_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for url, status in (
        ("postgresql://me:s3cret@host/db", 0),
        ("postgresql://me:s3c@ret/s3cret:@host:1/db", 2),
        ("postgresql://host/db?user=me&password=s3cret&sslmode=require", 0),
    ):
        assert cli.main(["--database", url, "--print-config"]) == status
        told = capsys.readouterr()
        assert 'database = "postgresql://' in told.out
        assert "host" in told.out
        assert "***" in told.out
        assert "s3c" not in told.out + told.err


def test_what_has_a_fault_has_no_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUPERLINK_HOLD", "soon")
    assert cli.main(["--grace", "-1", "--print-config"]) == 2
    told = capsys.readouterr()
    assert {"# hold  # has a fault", "# grace  # has a fault"} <= set(told.out.splitlines())
    assert "hold" not in tomllib.loads(told.out)
    assert "SUPERLINK_HOLD: 'soon' is no number of seconds" in told.err
