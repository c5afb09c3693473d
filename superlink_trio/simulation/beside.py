"""What goes on beside a block of code, and ends with it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from superlink_trio.logs.wording import leaves

_SILENT = 2.0
"""Seconds for which nobody wonders what is going on."""

_LONGEST = 30.0
"""Seconds between two lines about the same at most; it doubles from the first to the next."""


@asynccontextmanager
async def beside(*tasks: Callable[[], Awaitable[object]]) -> AsyncIterator[trio.Nursery]:
    """Run tasks beside a block, which may start more, and cancel them at its end.

    What the block raises comes out as it is, and not in a group.
    """
    try:
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        [error] = group.exceptions
    else:
        return
    raise error


@asynccontextmanager
async def told_if_slow(log: logging.Logger, doing: str) -> AsyncIterator[None]:
    """Log that a block is at work once that takes a while, and then how long it took."""
    began = trio.current_time()

    async def tell() -> None:
        seconds = _SILENT
        while True:
            await trio.sleep_until(began + seconds)
            log.info("%s, %d s so far", doing, seconds, extra={"seconds": seconds})
            seconds += min(seconds, _LONGEST)

    async with beside(tell):
        yield
    seconds = trio.current_time() - began
    if seconds > _SILENT:
        log.info("%s took %.1f s", doing, seconds, extra={"seconds": round(seconds, 1)})


@contextmanager
def ungrouped(*kinds: type[Exception]) -> Iterator[None]:
    """Raise an error of one of these kinds as it is, whatever nurseries it came through."""
    try:
        yield
    except BaseExceptionGroup as group:
        matching, rest = group.split(kinds)
        if matching is None or rest is not None:
            raise
        raise next(leaves(matching)) from None
