"""Bytes that several calls share."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

SMALL = 1_048_576
"""Sizes below this one are not counted: the number of connections bounds them."""


class Full(Exception):
    """There is no room for so many bytes now."""


class Budget:
    """Room for so many bytes at the same time; who waits for some gets it in turn.

    What is larger than the whole budget gets it alone.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._waiting: deque[tuple[int, trio.Event]] = deque()

    @asynccontextmanager
    async def wait_for(self, size: int) -> AsyncIterator[None]:
        """Keep room for `size` bytes inside the block; wait until there is some."""
        if size < SMALL:
            yield
            return
        if self._waiting or not self._fits(size):
            await self._turn(size)
        else:
            self._used += size
        try:
            yield
        finally:
            self._give_back(size)

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Keep room for `size` bytes inside the block. Raises Full if there is none now."""
        if size < SMALL:
            yield
            return
        if not self._fits(size):
            raise Full
        self._used += size
        try:
            yield
        finally:
            self._give_back(size)

    def _fits(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self._size

    async def _turn(self, size: int) -> None:
        entry = (size, trio.Event())
        self._waiting.append(entry)
        try:
            await entry[1].wait()
        except BaseException:
            if entry in self._waiting:
                self._waiting.remove(entry)
            else:
                self._used -= size
            self._serve_next()
            raise

    def _give_back(self, size: int) -> None:
        self._used -= size
        self._serve_next()

    def _serve_next(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            self._used += size
            turn.set()
