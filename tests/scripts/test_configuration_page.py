"""The tables of options in the document."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

from superlink_trio.config import OPTIONS

_ROOT = Path(__file__).parents[2]
_SCRIPT = _ROOT / "scripts" / "configuration-page"
_DOCUMENT = _ROOT / "docs" / "configuration.md"


def test_the_document_lists_the_options_as_they_are() -> None:
    told = subprocess.run(
        [sys.executable, _SCRIPT, "--check"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert _DOCUMENT.read_text().count("| `--") == len(OPTIONS.options)


def test_what_is_stale_is_written_anew() -> None:
    page = _DOCUMENT.read_text()
    stale = page.replace("| `--hold SECONDS` |", "| `--hodl SECONDS` |")
    assert stale != page
    assert runpy.run_path(str(_SCRIPT))["rewritten"](stale, OPTIONS) == page
