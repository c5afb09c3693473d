"""Programs of today's Flower: what they are told by their environment, and which of them run."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import trio

from peering.processes import ROOT

NEWEST = "1.42.0"
"""The release of the command line, of what the SuperLink starts, and of most nodes."""

ADDING = ROOT / "tests" / "interop" / "programs" / "today"
"""An app whose nodes add one to as many arrays as it is told to have."""


def surroundings(programs: Path, home: Path) -> dict[str, str]:
    """Give the variables for programs of one release: where they are, and where to keep things."""
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


def name_superlink(home: Path, address: str) -> None:
    """Let `flwr` know a SuperLink that speaks no TLS as `mine`."""
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "mine"\n[superlink.mine]\naddress = "{address}"\ninsecure = true\n'
    )


def processes(home: Path, name: str = "") -> list[int]:
    """Give the ids of processes with this word in their command line, of those that keep things
    there: whoever started them."""
    return [
        pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if _is(pid, home, name)
    ]


async def end_all(home: Path) -> None:
    """Kill the processes that keep things there, and wait until there are none."""
    while found := processes(home):
        for pid in found:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(pid, signal.SIGKILL)
        await trio.sleep(0.01)


def _is(pid: int, home: Path, name: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # It has ended, or is somebody else's.
        return False
    return f"FLWR_HOME={home}".encode() in environment and name.encode() in command
