"""A SuperLink that is killed under load loses nothing that it acknowledged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[1] / "scripts" / "crash"


@pytest.mark.timeout(180)
def test_five_kills_lose_nothing() -> None:
    done = subprocess.run(
        [sys.executable, str(_SCRIPT), "--kills", "5"], check=False, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("5 kills; 3 runs, 4 nodes and ")
