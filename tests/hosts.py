"""A store in a Trio program of its own, for tests whose steps come from outside Trio."""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import trio
from builders import EPOCH
from stores import settle
from trio.testing import MockClock

from superlink_trio.state import State
from superlink_trio.state.interface import Clock

Result = TypeVar("Result")


class Host:
    """A Trio program in a thread, in which a store lives for one history."""

    def __init__(self, make: Callable[[Clock, Path], State]) -> None:
        self.clock = MockClock()
        self._folder = tempfile.TemporaryDirectory()
        self._make = make
        self._entered: list[AbstractContextManager[Any]] = []
        self._ready: queue.Queue[State | BaseException] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        ready = self._ready.get(timeout=30)
        if isinstance(ready, BaseException):
            raise ready
        self.state = ready

    def _run(self) -> None:
        try:
            trio.run(self._main, clock=self.clock)
        except BaseException as error:
            self._ready.put(error)
            raise

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stopping = trio.Event()
        state = self._make(lambda: EPOCH + trio.current_time(), Path(self._folder.name))
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: state.serve(stopping=self._stopping, task_status=task_status)
            )
            self._ready.put(state)

    def call(self, function: Callable[..., Awaitable[Result]], *args: Any, **kwargs: Any) -> Result:
        async def bounded() -> Result:
            return await function(*args, **kwargs)

        return trio.from_thread.run(bounded, trio_token=self._token)

    def call_sync(self, function: Callable[..., Result], *args: Any) -> Result:
        return trio.from_thread.run_sync(function, *args, trio_token=self._token)

    def enter(self, manager: AbstractContextManager[Result]) -> Result:
        """Begin a block, which lasts until `exit` or the end of the host."""
        self._entered.append(manager)
        return self.call_sync(manager.__enter__)

    def exit(self, manager: AbstractContextManager[Any]) -> None:
        self._entered.remove(manager)
        self.call_sync(manager.__exit__, None, None, None)

    def jump(self, seconds: float) -> None:
        async def jump() -> None:
            self.clock.jump(seconds)
            await settle(self.state)

        self.call(jump)

    def outcome(
        self, function: Callable[..., Awaitable[Result]], *args: Any, **kwargs: Any
    ) -> list[Result]:
        """Give what a call returns without waiting for anybody; nothing if it would wait."""

        async def run() -> list[Result]:
            results: list[Result] = []

            async def collect() -> None:
                results.append(await function(*args, **kwargs))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(collect)
                await settle(self.state)
                nursery.cancel_scope.cancel()
            return results

        return self.call(run)

    def close(self) -> None:
        for manager in tuple(self._entered):
            self.exit(manager)
        self.call_sync(self._stopping.set)
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()
        self._folder.cleanup()
