"""What is acknowledged is on the disk: a power cut takes nothing back.

A killed process proves nothing of this, since the kernel keeps what it wrote.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import attrs
import pytest
from peering.processes import CHECKOUT

from superlink_trio.state import StateUnavailable
from superlink_trio.state.sqlite.committing import Committer
from superlink_trio.state.sqlite.opening import Database, open_database
from superlink_trio.state.sqlite.transaction import Transaction

_PROGRAM = Path(__file__).parent / "programs" / "acknowledge.py"
_TESTS = Path(__file__).parents[2]

_CALL = re.compile(r'(?P<thread>\d+) +(?P<name>\w+)\(\d+<(?P<file>[^>]*)>(, "(?P<text>[^"]*)")?')
_RESUMED = re.compile(r"(?P<thread>\d+) +<\.\.\. \w+ resumed>")


@attrs.define
class Traced:
    """A system call: which, on which file, with which text, and whether it went well."""

    name: str
    file: str
    text: str
    line: str

    @property
    def went_well(self) -> bool:
        return re.search(r"\) += 0$", self.line) is not None


def traced(log: str) -> Iterator[Traced]:
    """Give the calls in the order of their ends; but of those that write, of their beginnings."""
    unfinished: dict[str, Traced] = {}
    for line in log.splitlines():
        if found := _CALL.match(line):
            call = Traced(found["name"], found["file"], found["text"] or "", line)
            if call.name == "write" or not line.endswith("<unfinished ...>"):
                yield call
            else:
                unfinished[found["thread"]] = call
        elif (found := _RESUMED.match(line)) and found["thread"] in unfinished:
            yield attrs.evolve(unfinished.pop(found["thread"]), line=line)


def acknowledged(file: Path, *, under: Sequence[str] = ()) -> Sequence[str]:
    """Run the program, under another where one is given; give what it acknowledged."""
    done = subprocess.run(
        [*under, sys.executable, str(_PROGRAM), str(file)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{CHECKOUT}:{_TESTS}"},
    )
    if under and "ptrace" in done.stderr.lower():
        pytest.skip(f"not allowed here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 25
    return lines


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_log_is_synced_before_anything_is_acknowledged(file: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    strace = ["strace", "-fy", "--string-limit=99", "--trace=fsync,fdatasync,write", "-o"]
    lines = acknowledged(file, under=[*strace, str(trace)])
    synced: dict[str, bool] = {}
    on_disk = False
    for call in traced(trace.read_text()):
        written = call.text.removesuffix("\\n")
        if call.name in ("fsync", "fdatasync"):
            on_disk |= call.went_well and call.file == f"{file}-wal"
        elif written in lines:
            synced[written] = on_disk
            on_disk = False
    assert synced == dict.fromkeys(lines, True)


def test_what_is_acknowledged_was_committed_with_a_sync(file: Path) -> None:
    assert [line for line in acknowledged(file) if not line.endswith(": FULL")] == []


@pytest.mark.parametrize("found", ["none", "rollback journal"])
def test_a_file_is_opened_so_that_commits_are_synced(file: Path, found: str) -> None:
    if found != "none":
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE other(x)")
    database = Database(str(file), 1.0, math.inf)
    committer = Committer(database, open_database(database, "test", 0.0))

    def pragmas(tx: Transaction) -> tuple[int, str]:
        (synchronous,) = tx.first("PRAGMA synchronous") or (None,)
        (mode,) = tx.first("PRAGMA journal_mode") or (None,)
        return synchronous, mode

    def fail(tx: Transaction) -> None:
        tx.connection.rollback()
        raise sqlite3.OperationalError("so that the file is opened anew")

    def committed(*, durable: bool) -> object:
        return committer.commit([pragmas], {}, durable=durable).performed[0].result.unwrap()

    full, normal = (2, "wal"), (1, "wal")
    for _ in range(2):
        assert committed(durable=True) == full
        assert committed(durable=False) == normal
        assert committed(durable=True) == full
        with pytest.raises(StateUnavailable, match="opened anew"):
            committer.commit([fail], {}, durable=True)
    committer.close()
