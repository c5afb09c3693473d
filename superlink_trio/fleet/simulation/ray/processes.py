"""The end of a process session: the driver, Ray's daemons, its workers, and what apps started.

The driver leads a session of its own. Ray's daemons share its process group; each worker has its
own group, but nobody leaves the session. A signal to the group alone would miss the workers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def members(session: int) -> list[int]:
    """Give the ids of a session's processes that still run; none where there is no /proc."""
    return list(_members(session))


def kill_session(session: int) -> None:
    """Send SIGKILL to every process of a session but the calling one."""
    # Where there is no /proc, the group has to do.
    found = members(session)
    if not found and os.getpgrp() != session:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(session, signal.SIGKILL)
    for pid in found:
        if pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


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
