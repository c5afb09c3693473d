"""Stores of nodes, runs and messages: each test of the contract is made over every one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import trio
from builders import EPOCH
from postgresql import the_server
from state.messages.lab import Lab, a_node, new_run
from trio.testing import MockClock

from superlink_trio.state import MemoryState, SqliteState, State, StateLimits
from superlink_trio.state.interface import Clock
from superlink_trio.state.limits import NO_LIMITS
from superlink_trio.state.messages import MessageState, messages_beside
from superlink_trio.state.postgres import PostgresState

STORES: dict[str, Callable[[Clock, Path, StateLimits], State]] = {
    "memory": lambda clock, _, limits: MemoryState(clock=clock, limits=limits),
    "sqlite": lambda clock, folder, limits: SqliteState(
        str(folder / "state.db"), clock=clock, limits=limits
    ),
    "sqlite-in-memory": lambda clock, _, limits: SqliteState(
        ":memory:", clock=clock, limits=limits
    ),
    "postgres": lambda clock, _, limits: PostgresState(
        the_server().new_schema(), clock=clock, limits=limits
    ),
}

Make: TypeAlias = Callable[[StateLimits], Awaitable[MessageState]]


@pytest.fixture(params=STORES)
async def make(
    request: pytest.FixtureRequest, tmp_path: Path, mock_clock: MockClock
) -> AsyncIterator[Make]:
    """Make a store with limits, which serves; it is `EPOCH` when the test begins.

    Skips the test where its database cannot be run.
    """
    if request.param == "postgres":
        the_server()
    stopping: list[trio.Event] = []

    async def make(limits: StateLimits) -> MessageState:
        state = STORES[request.param](lambda: EPOCH + trio.current_time(), tmp_path, limits)
        messages = messages_beside(state)
        for served in (state, messages):
            stop = trio.Event()
            stopping.insert(0, stop)
            await nursery.start(serve, served, stop)
        return messages

    async def serve(
        served: State | MessageState, stop: trio.Event, *, task_status: trio.TaskStatus[None]
    ) -> None:
        await served.serve(stopping=stop, task_status=task_status)

    async with trio.open_nursery() as nursery:
        yield make
        for stop in stopping:
            stop.set()
            await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
async def state(make: Make) -> MessageState:
    return await make(NO_LIMITS)


@pytest.fixture
async def lab(state: MessageState, nursery: trio.Nursery) -> Lab:
    """Start a run, whose process is heard of as long as the test lasts, and a node."""
    await state.create_run(new_run())
    claim = await state.claim_run()
    assert claim is not None
    await state.begin_run(claim.token)
    nursery.start_soon(_keep_alive, state, claim.token)
    return Lab(state, claim.run.run_id, await a_node(state))


async def _keep_alive(state: MessageState, token: str) -> None:
    goes_on = True
    while goes_on:
        await trio.sleep(20)
        goes_on = await state.task_heartbeat(token)
