"""Whole processes under load, stopped by a signal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from examples import fewer

SCRIPT = Path(__file__).parents[3] / "scripts" / "abuse"


@pytest.mark.alone
def test_sigterm_under_load_is_bounded_and_loses_nothing() -> None:
    # Bounded: how fast is for a machine that has nothing else to do.
    command = [
        sys.executable,
        str(SCRIPT),
        "--stop",
        "--times",
        str(fewer(5, 1)),
        "--load",
        "0.5",
        "--slack",
        "20",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
