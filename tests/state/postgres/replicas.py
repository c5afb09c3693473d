"""Several stores of nodes, runs and messages over one database, as several processes have them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from builders import EPOCH
from stores import settle

from superlink_trio.state.messages import DurableMessages
from superlink_trio.state.postgres import PostgresState


@asynccontextmanager
async def replica(url: str, **options: Any) -> AsyncIterator[DurableMessages]:
    """Serve a store inside the block; it is `EPOCH` when the test begins, if its clock is Trio's.

    `options`: of the state beneath.
    """
    options = {"clock": lambda: EPOCH + trio.current_time(), **options}
    state = PostgresState(url, **options)
    messages = DurableMessages(state)
    stopping = [trio.Event(), trio.Event()]
    async with trio.open_nursery() as nursery:
        for served, stop in zip((state, messages), stopping, strict=True):
            await nursery.start(
                lambda task_status, served=served, stop=stop: served.serve(
                    stopping=stop, task_status=task_status
                )
            )
        yield messages
        for stop in reversed(stopping):
            stop.set()
            await trio.testing.wait_all_tasks_blocked()


async def heard(replicas: Sequence[DurableMessages]) -> None:
    """Let stores know of what the others have done, as a notification does."""
    for each in replicas:
        await each._state.write(lambda _: None)
    await settle(*replicas)


async def later(replicas: Sequence[DurableMessages], seconds: float) -> None:
    """Let time pass, at once, in which the stores hear of each other."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    while seconds > 0:
        clock.jump(min(seconds, 2.5))
        seconds -= 2.5
        await heard(replicas)
