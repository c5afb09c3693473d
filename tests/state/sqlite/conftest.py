from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import attrs
import pytest
import trio
from builders import EPOCH
from peering.processes import CHECKOUT

from superlink_trio.state import SqliteState

Serving: TypeAlias = Callable[..., AbstractAsyncContextManager[SqliteState]]

_PROGRAMS = Path(__file__).parent / "programs"
_TESTS = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
async def serving(file: Path) -> Serving:
    """Serve a store on `file` inside a block; it is `EPOCH` when the test begins."""
    start = trio.current_time()

    @asynccontextmanager
    async def serve(path: Path = file, **options: Any) -> AsyncIterator[SqliteState]:
        options = {
            "patience": 0.2,
            "clock": lambda: EPOCH + trio.current_time() - start,
            **options,
        }
        state = SqliteState(str(path), **options)
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: state.serve(stopping=stopping, task_status=task_status)
            )
            try:
                yield state
            finally:
                stopping.set()

    return serve


@attrs.frozen
class Program:
    """A process beside the test. It tells in lines of JSON what it does."""

    process: subprocess.Popen[str]

    async def told(self) -> Any:
        """Wait for its next line."""
        return await trio.to_thread.run_sync(self._read)

    def _read(self) -> Any:
        return json.loads(self._pipe(self.process.stdout).readline())

    def tell(self) -> None:
        """Let it go on."""
        self._pipe(self.process.stdin).write("\n")
        self._pipe(self.process.stdin).flush()

    def kill(self) -> None:
        """End it by SIGKILL, and wait for that."""
        self.process.kill()
        self.process.communicate()

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    """Start programs from `programs/`; those that still run are killed at the end."""
    started: list[Program] = []

    def start(name: str, *arguments: object) -> Program:
        process = subprocess.Popen(
            [sys.executable, str(_PROGRAMS / name), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": f"{CHECKOUT}:{_TESTS}"},
        )
        started.append(Program(process))
        return started[-1]

    yield start
    for program in started:
        program.kill()
