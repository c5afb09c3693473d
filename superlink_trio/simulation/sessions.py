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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")

# <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36


def members(session: int) -> list[int]:
    """Give the ids of a session's processes that still run; none where there is no /proc."""
    return list(_members(session))


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


def _members(session: int) -> Iterator[int]:
    if not _PROC.is_dir():
        return
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        # A process may end while it is looked at.
        with suppress(OSError):
            # Behind the name, which may hold anything: state, parent, group, session (proc(5)).
            _, _, rest = (entry / "stat").read_text(errors="replace").rpartition(")")
            state, _, _, of, *_ = rest.split()
            if int(of) == session and state not in "ZX":
                yield int(entry.name)
