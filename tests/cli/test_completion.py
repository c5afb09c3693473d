"""What shells are told, and that bash makes of it what a person expects."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from superlink_trio import cli
from superlink_trio.cli.programs import COMMANDS

_ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_superlink_trio
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert cli.main(["completion", "bash"]) == 0
    path = tmp_path / "superlink-trio"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["ins"], ["inspect"]),
        (["--vc"], ["--vce"]),
        (["--backend", ""], ["ray", "process"]),
        (["check", "--driver-h"], ["--driver-hold"]),
        (["fleet-api", "--driver-h"], [""]),
        (["completion", ""], ["bash", "zsh"]),
        (["help", "chec"], ["check"]),
        (["--config", "superl"], ["superlink.toml"]),
        (["--database", "st"], ["state.db"]),
        (["inspect", "st"], ["state.db"]),
    ],
)
def test_bash_completes(script: Path, words: list[str], wanted: list[str]) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    (script.parent / "state.db").touch()
    (script.parent / "superlink.toml").touch()
    told = subprocess.run(
        [bash, "--norc", "-c", _ASK, "bash", str(script), "superlink-trio", *words],
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = [line for line in told.stdout.splitlines() if line != script.name]
    assert found == wanted


def test_zsh_is_told_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "zsh"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("#compdef superlink-trio")
    for name in COMMANDS:
        assert re.search(rf"^\s*\"?{name}:", told, re.MULTILINE)


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["completion", "fish"])
    assert caught.value.code == 2
    assert "'fish'" in capsys.readouterr().err
