"""The stores that have to keep the contract: a new one is added here and is tested like all."""

from __future__ import annotations

from collections.abc import Callable

from superlink_trio.state import MemoryState, State
from superlink_trio.state.interface import Clock

STORES: dict[str, Callable[[Clock], State]] = {
    "memory": lambda clock: MemoryState(clock=clock),
}
