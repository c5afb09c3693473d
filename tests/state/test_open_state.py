from __future__ import annotations

from pathlib import Path

import trio

from superlink_trio.state import MemoryState, SqliteState, open_state
from superlink_trio.wire.runs import Run


def test_the_default_is_memory() -> None:
    assert isinstance(open_state(":flwr-in-memory-state:"), MemoryState)


async def test_a_path_is_a_file(tmp_path: Path) -> None:
    state = open_state(str(tmp_path / "state.db"), clock=lambda: 1.0)
    assert isinstance(state, SqliteState)
    assert state.now() == 1.0
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: state.serve(stopping=stopping, task_status=task_status)
        )
        await state.create_run(Run())
        stopping.set()
    assert (tmp_path / "state.db").stat().st_size > 0
