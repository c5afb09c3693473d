"""That the fuzzer runs, and that its targets tell good from bad."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fuzzing import handlers, splicing

_FUZZ = Path(__file__).parents[2] / "scripts" / "fuzz"
_INSTALLED = importlib.util.find_spec("atheris") is not None


@pytest.mark.parametrize("target", [splicing, handlers], ids=["splicing", "handlers"])
def test_honest_inputs_pass(target: Any) -> None:
    seeds = list(target.seeds())
    assert seeds == list(target.seeds()), "drawn anew each time"
    for seed in seeds:
        target.check(seed)


def test_another_reading_than_protobufs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splicing, "read_push_task_ins", lambda raw: [])
    _, request, *_ = splicing.seeds()
    with pytest.raises(AssertionError, match="more or fewer items"):
        splicing.check(request)


@pytest.mark.skipif(not _INSTALLED, reason="atheris is not installed: pip install atheris")
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    completed = subprocess.run(
        [sys.executable, _FUZZ, "--seconds", "2", "--corpus", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert completed.returncode == 0, completed.stdout
    for target in ("splicing", "handlers"):
        assert f"{target}: nothing found; " in completed.stdout
        assert any((tmp_path / target).iterdir())


@pytest.mark.skipif(_INSTALLED, reason="atheris is installed")
def test_without_atheris_it_says_so() -> None:
    completed = subprocess.run([sys.executable, _FUZZ], capture_output=True, text=True, timeout=60)
    assert completed.returncode == 2
    assert "pip install atheris" in completed.stderr
