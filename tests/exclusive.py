"""Tests that need the machine for themselves, among processes that run tests side by side.

What is asserted about real time, or about memory that the system gives back, holds on a machine
that does nothing else. Such tests are marked `alone`: no other test of the same run is under way
while they are, whichever worker it belongs to. All others hold a lock together.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs


@attrs.frozen
class Turns:
    """A lock between processes that many hold together, or one alone.

    Two files in a directory: whoever wants the second goes through the first, so that those who
    share cannot keep out for ever one who waits to be alone. The kernel lets go of both when a
    process ends, however it ends.
    """

    directory: Path

    @contextmanager
    def take(self, *, alone: bool) -> Iterator[None]:
        """Wait for a turn, and hold it inside the block."""
        with (
            (self.directory / "door").open("w") as door,
            (self.directory / "room").open("w") as room,
        ):
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            fcntl.flock(door, fcntl.LOCK_UN)
            yield
