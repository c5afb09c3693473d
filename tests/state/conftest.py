from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from builders import EPOCH
from stores import STORES, serving

from superlink_trio.state import State


@pytest.fixture(params=STORES)
async def state(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[State]:
    """Give a store that serves, in which it is `EPOCH` now, and time moves with Trio's clock."""
    start = trio.current_time()
    state = STORES[request.param](lambda: EPOCH + trio.current_time() - start, tmp_path)
    async with serving(state):
        yield state
