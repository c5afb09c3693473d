from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from builders import EPOCH
from stores import STORES
from trio.testing import MockClock
from workshop import Lab

from superlink_trio.state import State


@pytest.fixture(params=["memory", "sqlite"])
async def state(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[State]:
    """Give a store that serves, in which it is `EPOCH` now, and time moves with Trio's clock."""
    start = trio.current_time()
    state = STORES[request.param](lambda: EPOCH + trio.current_time() - start, tmp_path)
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: state.serve(stopping=stopping, task_status=task_status)
        )
        yield state
        stopping.set()


@pytest.fixture
def lab(state: State, mock_clock: MockClock, tmp_path: Path) -> Lab:
    lab = Lab(state, tmp_path)
    lab.make()
    return lab
