from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
from builders import EPOCH
from postgresql import the_server
from stores import STORES, serving

from superlink_trio.state import State
from superlink_trio.state.interface import Clock


@pytest.fixture(params=STORES)
def make(request: pytest.FixtureRequest) -> Callable[[Clock, Path], State]:
    """Give what makes a store; skips the test where its database cannot be run."""
    if request.param == "postgres":
        the_server()
    return STORES[request.param]


@pytest.fixture
async def state(make: Callable[[Clock, Path], State], tmp_path: Path) -> AsyncIterator[State]:
    """Give a store that serves, in which it is `EPOCH` now, and time moves with Trio's clock."""
    start = trio.current_time()
    state = make(lambda: EPOCH + trio.current_time() - start, tmp_path)
    async with serving(state):
        yield state
