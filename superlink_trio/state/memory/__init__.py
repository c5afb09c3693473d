"""The default store: everything in memory, gone with the process.

Every method takes its step between two checkpoints, which is what makes it atomic. Everything is
found by key: the cost of a call does not depend on how much is queued for others.
"""

from __future__ import annotations

from superlink_trio.state.memory.store import MemoryState

__all__ = ["MemoryState"]
