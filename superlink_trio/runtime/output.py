"""What a process prints, in a file without a name.

Not in a pipe: that breaks when the SuperLink is killed, and with it the process at its next word,
which could have gone on with the next SuperLink over the same database.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
from collections import deque
from contextlib import AbstractContextManager
from types import TracebackType

import trio

_log = logging.getLogger(__name__)

# Lines that are told when a process fails. What its app logs comes another way.
_LAST_LINES = 20
_LONGEST_LINE = 1000

# Nobody is told when a file grows.
_LOOK_EVERY = 1.0

# Bytes from which on what was read is thrown away.
_LARGEST = 1024 * 1024


class Output(AbstractContextManager["Output"]):
    """A file for a process to print into, and its last lines. `name`: the program's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (this is its manager)
        # Whoever appends goes on at the beginning when the file was emptied.
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_APPEND)
        self._read = 0
        self._rest = ""
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def fileno(self) -> int:
        """Give the file's descriptor."""
        return self._file.fileno()

    async def follow(self) -> None:
        """Log what is printed, until cancelled."""
        while True:
            await trio.sleep(_LOOK_EVERY)
            self._look()

    def read(self) -> None:
        """Read what is there, for good: a last line that has no end is one."""
        self._look()
        if self._rest:
            self._note(self._rest)

    def _look(self) -> None:
        size = os.fstat(self.fileno()).st_size
        # What a process prints faster than it is read is left out.
        self._read = max(self._read, size - _LARGEST)
        data = os.pread(self.fileno(), size - self._read, self._read)
        self._read += len(data)
        if self._read >= _LARGEST:
            self._file.truncate(0)
            self._read = 0
        *lines, self._rest = (self._rest + data.decode(errors="replace")).split("\n")
        for line in lines:
            self._note(line)
        self._rest = self._rest[-_LONGEST_LINE:]

    def _note(self, line: str) -> None:
        # Of a bar that is drawn again and again the last drawing counts.
        self.last_lines.append(line.rstrip().rpartition("\r")[2][:_LONGEST_LINE])
        _log.debug("%s: %s", self._name, self.last_lines[-1])
