"""Processes outlive who has started them, if that is killed: who comes next takes them over.

A process id alone could be another's by then. So it goes with the time at which the process began.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import attrs
import trio

from superlink_trio.processes.ending import end_session
from superlink_trio.processes.sessions import began_at


@attrs.frozen
class SessionLeader:
    """A process that leads a session."""

    purpose: int
    """What it was started for: no two of them have the same number."""
    pid: int
    began: int
    """In clock ticks since the machine was started."""

    @classmethod
    def of(cls, purpose: int, pid: int) -> SessionLeader | None:
        """Note a process; None where it has ended."""
        began = began_at(pid)
        return None if began is None else cls(purpose, pid, began)

    async def wait(self) -> None:
        """Wait for its end, whoever its parent is."""
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            try:
                if began_at(self.pid) == self.began:
                    await trio.lowlevel.wait_readable(descriptor)
            finally:
                os.close(descriptor)

    def kill(self) -> None:
        """Send SIGKILL to it alone, if it has not ended."""
        if began_at(self.pid) == self.began:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def end(self, within: float) -> Sequence[int]:
        """Kill all of its session, in so many seconds; give the ids of those left over."""
        # Nobody gets an id that a session has still: where another process has it, that is over.
        if began_at(self.pid) not in (None, self.began):
            return ()
        return await end_session(self.pid, within)


Note: TypeAlias = Callable[[Sequence[SessionLeader]], None]


@attrs.define
class Handover:
    """What one who starts processes leaves to the next."""

    _note: Note
    """Is told of all processes whenever there is one more or less."""
    _found: Sequence[SessionLeader] = ()
    _processes: dict[int, SessionLeader] = attrs.field(init=False)
    """By their purposes."""

    @_processes.default
    def _those_found(self) -> dict[int, SessionLeader]:
        return {process.purpose: process for process in self._found}

    def take(self) -> Sequence[SessionLeader]:
        """Give the processes that were found, once."""
        found, self._found = self._found, ()
        return found

    def add(self, process: SessionLeader) -> None:
        """Note a process that was started."""
        self._processes[process.purpose] = process
        self._note(tuple(self._processes.values()))

    def remove(self, purpose: int) -> None:
        """Note that the process of this purpose has ended."""
        if self._processes.pop(purpose, None) is not None:
            self._note(tuple(self._processes.values()))
