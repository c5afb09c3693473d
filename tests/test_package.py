"""What the package shows of itself before anything of it is used."""

from __future__ import annotations

import pydoc
import subprocess
import sys

import superlink_trio


def test_its_names_are_seen_before_they_are_imported() -> None:
    script = "import superlink_trio; print(*dir(superlink_trio))"
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert set(superlink_trio.__all__) <= set(told.stdout.split())


def test_help_describes_all_of_them() -> None:
    text = pydoc.plain(pydoc.render_doc(superlink_trio))
    for name in superlink_trio.__all__:
        assert name in text
    assert "Run the Driver API and the Fleet API, or simulated nodes, until stopped." in text
