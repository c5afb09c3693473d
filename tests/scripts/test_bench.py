"""The benchmark's table, and that the benchmark runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.table import (
    CALLS_PER_SECOND,
    PROCESSES,
    SECONDS,
    Row,
    Skipped,
    Target,
    Unit,
    at_least,
    at_most,
    markdown,
    missed,
    times_better,
)
from postgresql import the_server

pytestmark = pytest.mark.once

_BENCH = Path(__file__).parents[2] / "scripts" / "bench"


def _row(unit: Unit, reference: list[float], ours: list[float], target: Target | None) -> Row:
    return Row(what="it", unit=unit, reference=reference, ours=ours, target=target)


@pytest.mark.parametrize(
    ("unit", "reference", "ours", "ratio"),
    [
        (SECONDS, [18.0], [0.1], 180),
        (SECONDS, [0.2], [0.4], 0.5),
        (CALLS_PER_SECOND, [2000.0], [3000.0], 1.5),
        (SECONDS, [1.0, 9.0, 2.0], [4.0, 1.0, 0.1], 2),
        (SECONDS, [], [0.1], None),
    ],
)
def test_ratio_is_above_1_where_ours_is_the_better_one(
    unit: Unit, reference: list[float], ours: list[float], ratio: float | None
) -> None:
    assert _row(unit, reference, ours, None).ratio == ratio


@pytest.mark.parametrize(
    ("target", "reference", "ours", "reached"),
    [
        (at_most(0.4, SECONDS), [0.6], [0.4], True),
        (at_most(0.4, SECONDS), [0.6], [0.41], False),
        (at_most(0.4, SECONDS), [], [0.3], True),
        (at_least(0.4, SECONDS), [0.6], [0.4], True),
        (at_least(0.4, SECONDS), [0.6], [0.39], False),
        (times_better(2), [0.6], [0.3], True),
        (times_better(2), [0.6], [0.31], False),
        (times_better(2), [], [0.3], None),
        (None, [0.6], [0.3], None),
    ],
)
def test_whether_a_target_is_reached(
    target: Target | None, reference: list[float], ours: list[float], reached: bool | None
) -> None:
    assert _row(SECONDS, reference, ours, target).reached is reached


def test_table() -> None:
    rows: list[Row | Skipped] = [
        _row(CALLS_PER_SECOND, [2370.2, 2400.0, 2200.0], [4740.4], times_better(1.6)),
        _row(SECONDS, [], [0.5], at_most(0.4, SECONDS)),
        _row(PROCESSES, [1.0], [0.0], at_most(0, PROCESSES)),
        Skipped("REST", "no client"),
    ]
    assert markdown(rows) == (
        "| what | Flower | superlink-trio | times better |\n"
        "| --- | --- | --- | --- |\n"
        "| it | 2,370 calls/s (2,200–2,400) | 4,740 calls/s | 2.00× |\n"
        "| it | – | 0.500 s | – |\n"
        "| it | 1 processes | 0 processes | – |\n"
        "| REST | – | not measured: no client | – |\n"
    )
    assert missed(rows) == ["it: 0.500 s, meant to be ≤ 0.4 s"]


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")
@pytest.mark.parametrize(
    ("rows", "written"),
    [
        ("start", "start to listening | – | "),
        ("engine", "trivial tasks of simulated nodes, 2 workers, process | – | "),
        ("federation-stop", "start_server: SIGINT to exit, "),
        ("today-parked", "1.42: 100 nodes with held pulls: memory | – | "),
    ],
)
def test_a_run_writes_its_table(rows: str, written: str, tmp_path: Path) -> None:
    _run(rows, written, tmp_path / "table.md")


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")
@pytest.mark.parametrize(
    ("rows", "written"),
    [
        ("wake", "wake, PostgreSQL, 2 SuperLinks: median | – | "),
        ("messages", "1.42, PostgreSQL, 2 SuperLinks: messages and replies of 8 pairs | – | "),
    ],
)
def test_a_run_over_postgresql_writes_its_table(rows: str, written: str, tmp_path: Path) -> None:
    the_server()  # where there can be none this test is skipped
    _run(rows, written, tmp_path / "table.md")


def _run(rows: str, written: str, output: Path) -> None:
    options = ("--quick", "--no-reference", "--output", str(output))
    completed = subprocess.run(
        [sys.executable, _BENCH, rows, *options],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert f"\n| {written}" in completed.stdout
    assert "not measured" not in completed.stdout
    assert output.read_text() == completed.stdout


def test_unknown_rows_are_refused() -> None:
    completed = subprocess.run(
        [sys.executable, _BENCH, "speed"], capture_output=True, text=True, timeout=60
    )
    assert completed.returncode == 2
    assert "no rows are called speed" in completed.stderr
