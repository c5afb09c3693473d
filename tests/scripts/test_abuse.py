"""That the attacks run, and what counts as borne."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from abusing.assault import Tally
from abusing.attacks import ATTACKS, MEGABYTE
from abusing.trial import HEAD, Cost, Outcome

pytestmark = pytest.mark.once

_ABUSE = Path(__file__).parents[2] / "scripts" / "abuse"


def outcome(
    *, peak: int = 60, latencies: tuple[float, ...] = (0.1, 0.3), unserved: tuple[str, ...] = ()
) -> Outcome:
    return Outcome(
        attack=ATTACKS[1],
        memory=100 * MEGABYTE,
        tally=Tally(frames=1000, connections=4, ended=2),
        seconds=3,
        cost=Cost(before=50 * MEGABYTE, peak=peak * MEGABYTE, after=55 * MEGABYTE, cpu=1.25),
        latencies=latencies,
        errors=["UNAVAILABLE", "UNAVAILABLE"],
        unserved=unserved,
        logged=[{"level": "info"}, {"level": "error"}],
    )


def test_a_row() -> None:
    cells = outcome().cells()
    assert len(cells) == len(HEAD)
    assert cells == (
        "rapid reset",
        "1,000 / 4 in 3 s",
        "ended 2 connections",
        "50 / 60 / 55",
        "1.2 s",
        "2 (1 errors)",
        "200 / 300 ms, 2 UNAVAILABLE",
        "served",
    )


@pytest.mark.parametrize(
    ("worse", "fault"),
    [
        (outcome(peak=151), "grew by more than 100 MB"),
        (outcome(latencies=(0.1, 5.5)), "a call took 5.5 s"),
        (outcome(latencies=()), "the normal client made no call"),
        (outcome(unserved=("PingRequest: UNAVAILABLE",)), "not served: PingRequest: UNAVAILABLE"),
    ],
)
def test_what_must_not_be_is_said(worse: Outcome, fault: str) -> None:
    assert worse.faults == [fault]
    assert fault in worse.cells()[-1]
    assert not outcome().faults


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_one_attack_on_each_server(tmp_path: Path) -> None:
    output = tmp_path / "report.md"
    options = ("--attack", "noise", "--seconds", "0.5", "--output", str(output))
    completed = subprocess.run(
        [sys.executable, _ABUSE, "grpc", "rest", *options],
        capture_output=True,
        text=True,
        timeout=120,
    )
    # Whether it was borne in time is for a machine that has nothing else to do.
    assert completed.stdout.count("\n| noise | ") == 2, completed.stderr
    assert completed.stdout.count("with status 0") == 2
    assert output.read_text() == completed.stdout


def test_unknown_servers_are_refused() -> None:
    completed = subprocess.run(
        [sys.executable, _ABUSE, "gopher"], capture_output=True, text=True, timeout=60
    )
    assert completed.returncode == 2
    assert "no servers are called gopher" in completed.stderr
