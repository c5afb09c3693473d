"""What the SuperLink remembers: one contract, one file per store."""

from __future__ import annotations

from superlink_trio.state.interface import Admission, NotTaken, State
from superlink_trio.state.memory import MemoryState

__all__ = ["Admission", "MemoryState", "NotTaken", "State"]
