from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from exclusive import Turns

_PROGRAM = """if True:
    import sys
    from pathlib import Path
    from exclusive import Turns
    directory, who = Path(sys.argv[1]), sys.argv[2]
    with Turns(directory).take(alone=who == "alone"), (directory / "order").open("a") as order:
        print(who, file=order, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_those_who_share_let_one_be_alone(tmp_path: Path) -> None:
    def waiting(who: str) -> subprocess.Popen[bytes]:
        """Start a process; it waits for its turn when this returns."""
        command = [sys.executable, "-c", _PROGRAM, str(tmp_path), who]
        process = subprocess.Popen(command, cwd=Path(__file__).parent)
        while not _waits_for_a_lock(process.pid):
            assert process.poll() is None, "it did not wait"
        return process

    turns = Turns(tmp_path)
    with turns.take(alone=False), turns.take(alone=False):
        processes = [waiting("alone"), waiting("together")]
        assert not (tmp_path / "order").exists()
    assert [process.wait() for process in processes] == [0, 0]
    assert (tmp_path / "order").read_text().split() == ["alone", "together"]


def _waits_for_a_lock(pid: int) -> bool:
    # The arrow marks those that wait.
    return any(
        "-> FLOCK" in line and f" {pid} " in line
        for line in Path("/proc/locks").read_text().splitlines()
    )
