"""SIGHUP: what a file says by now counts, as far as it can, or every fault is said."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BEGINNING = """
driver-api-address = "127.0.0.1:0"
fleet-api-address = "127.0.0.1:0"
log-format = "json"
hold = 20
"""

Entry = dict[str, Any]


class Program:
    """A SuperLink with a file."""

    def __init__(self, file: Path, *words: str) -> None:
        self._file = file
        self.write(BEGINNING)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "superlink_trio", "--config", str(file), *words],
            env={"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        self._log: Iterator[Entry] = map(json.loads, self.process.stderr)
        self.until("driver_address")

    def write(self, text: str) -> None:
        self._file.write_text(text)

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def until(self, field: str = "", event: str = "") -> Entry:
        """Give the next entry with this field and these words."""
        for entry in self._log:
            if event in entry["event"] and (not field or field in entry):
                return entry
        pytest.fail(f"never logged {field!r}, {event!r}")

    def stop(self) -> list[Entry]:
        self.process.terminate()
        rest = list(self._log)
        assert self.process.wait(30) == 0
        return rest


@pytest.fixture
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path / "superlink.toml", *getattr(request, "param", ()))
    yield made
    made.process.kill()
    made.process.communicate()


def test_what_a_file_says_by_now_counts(program: Program) -> None:
    program.write(BEGINNING.replace("hold = 20", "hold = 5\nmax-nodes = 7"))
    program.reload()
    assert program.until("option")["event"] == "--hold is 5 now, it was 20"
    assert program.until("option")["event"] == "--max-nodes is 7 now, it was 100000"
    program.write(BEGINNING)
    program.reload()
    assert program.until("option")["event"] == "--hold is 20 now, it was 5"
    program.stop()


def test_the_log_level_changes_and_changes_back(program: Program) -> None:
    program.write(f'{BEGINNING}log-level = "debug"\n')
    program.reload()
    assert program.until("option")["event"] == "--log-level is debug now, it was info"
    program.write(BEGINNING.replace("hold = 20", 'hold = 3\nlog-level = "warning"'))
    program.reload()
    assert program.until("option")["event"] == "--log-level is warning now, it was debug"
    program.write(BEGINNING.replace("hold = 20", 'hold = 4\nlog-level = "info"'))
    program.reload()
    # What was info meanwhile, --hold is 3 now, was not logged.
    assert program.until("option")["event"] == "--log-level is info now, it was warning"
    assert program.until("option")["event"] == "--hold is 4 now, it was 3"
    program.stop()


def test_what_needs_a_restart_is_said_each_time(program: Program) -> None:
    program.write(BEGINNING.replace("json", "text") + "grace = 1\n")
    for _ in range(2):
        program.reload()
        assert program.until("option")["event"] == (
            "--log-format stays json until a restart, it is to be text"
        )
        assert program.until("option")["event"] == "--grace stays 10 until a restart, it is to be 1"
    program.stop()


def test_a_file_with_faults_changes_nothing_and_all_are_said(program: Program) -> None:
    program.write(BEGINNING.replace("hold = 20", 'hold = 5\nlog-level = "loud"\nholdd = 3'))
    program.reload()
    faults = [program.until(event="Nothing is changed: ")["event"] for _ in range(2)]
    assert "log-level: 'loud' is none of" in faults[0]
    assert "holdd: no such option; did you mean hold?" in faults[1]
    assert not any("option" in entry for entry in program.stop())


def test_a_file_that_is_gone_changes_nothing(program: Program, tmp_path: Path) -> None:
    (tmp_path / "superlink.toml").unlink()
    program.reload()
    fault = program.until(event="Nothing is changed: ")
    assert fault["level"] == "error"
    assert "No such file or directory" in fault["event"]
    program.stop()


@pytest.mark.parametrize("program", [("--hold", "9")], indirect=True)
def test_the_command_line_still_wins(program: Program) -> None:
    program.write(BEGINNING.replace("hold = 20", "hold = 5"))
    program.reload()
    program.until(event="No option of the SuperLink has changed")
    program.stop()


def test_a_new_warning_is_said_once(program: Program) -> None:
    program.write(f'{BEGINNING}storage-dir = "fabs"\n')
    for _ in range(2):
        program.reload()
    program.until(event="storage-dir: not used, fabs are kept in the database")
    program.until(event="No option of the SuperLink has changed")
    assert not any("storage-dir" in entry["event"] for entry in program.stop())
