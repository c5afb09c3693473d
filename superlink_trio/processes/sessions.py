"""Sessions of processes: what a backend starts, and what apps start, ends together.

Who leads a session can be ended with everybody in it, whatever groups they have made: nobody
leaves a session but by leading one of their own. A signal to a group alone would miss some.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")

# proc(5): states of processes that have ended; which field behind the state says when one began.
_ENDED = "ZX"
_START_TIME = 18

# <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36


def members(session: int) -> list[int]:
    """Give the ids of a session's processes that still run; none where there is no /proc."""
    if not _PROC.is_dir():
        return []
    pids = (int(name) for name in os.listdir(_PROC) if name.isdecimal())
    return [pid for pid in pids if _runs_in(session, pid)]


def began_at(pid: int) -> int | None:
    """Give when a process began, in clock ticks since the machine did; None where it has ended."""
    with suppress(OSError):
        state, *fields = _stat(pid)
        return None if state in _ENDED else int(fields[_START_TIME])
    return None


def _runs_in(session: int, pid: int) -> bool:
    # A process may end while it is looked at.
    with suppress(OSError):
        return os.getsid(pid) == session and _stat(pid)[0] not in _ENDED
    return False


def _stat(pid: int) -> list[str]:
    # Behind the name, which may hold anything, comes the state (proc(5)).
    _, _, rest = (_PROC / f"{pid}/stat").read_text(errors="replace").rpartition(")")
    return rest.split()


def kill_session(session: int) -> None:
    """Send SIGKILL to every process of a session but the calling one."""
    found = members(session)
    if not _PROC.is_dir() and os.getpgrp() != session:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(session, signal.SIGKILL)
    for pid in found:
        if pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def end_own_session(within: float) -> None:
    """End every other process of the session that this one leads, and wait for them, in seconds.

    They are waited for by this process, whoever started them: not every container has an init
    that does it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    deadline = time.monotonic() + within
    with suppress(ChildProcessError):  # there are none left
        while time.monotonic() < deadline:
            kill_session(os.getpid())
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                time.sleep(0.005)
