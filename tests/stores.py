"""The stores that have to keep the contract: a new one is added here and is tested like all."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from postgresql import the_server
from trio.testing import wait_all_tasks_blocked

from superlink_trio.state import MemoryState, SqliteState, State
from superlink_trio.state.durable import DurableState
from superlink_trio.state.durable.upkeep import nothing
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


@asynccontextmanager
async def serving(state: State) -> AsyncIterator[None]:
    """Serve a store inside the block."""
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: state.serve(stopping=stopping, task_status=task_status)
        )
        try:
            yield
        finally:
            stopping.set()


async def hear(*states: DurableState) -> None:
    """Let stores know of what others over their database have done."""
    for state in states:
        await state.write(nothing)
    await settle(*states)


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
