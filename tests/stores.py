"""The stores that have to keep the contract: a new one is added here and is tested like all."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import trio
from postgresql import the_server
from trio.testing import wait_all_tasks_blocked

from superlink_trio.state import MemoryState, SqliteState, State
from superlink_trio.state.interface import Clock
from superlink_trio.state.messages import MessageState
from superlink_trio.state.postgres import PostgresState

STORES: dict[str, Callable[[Clock, Path], State]] = {
    "memory": lambda clock, _: MemoryState(clock=clock),
    "sqlite": lambda clock, folder: SqliteState(str(folder / "state.db"), clock=clock),
    "sqlite-in-memory": lambda clock, _: SqliteState(":memory:", clock=clock),
    "postgres": lambda clock, _: PostgresState(the_server().new_schema(), clock=clock),
}
"""By name: each makes a store, given a clock and an empty folder."""


async def settle(*states: State | MessageState) -> None:
    """Let everything get as far as it gets without the clock.

    A task that waits for a worker thread is blocked, but will go on by itself.
    """
    while True:
        await wait_all_tasks_blocked()
        # Those that keep everything in memory have no threads.
        if not any(getattr(state, "busy", False) for state in states):
            return
        await trio.to_thread.run_sync(time.sleep, 0.0005)
