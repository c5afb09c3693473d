"""Work on large byte strings, kept off the event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, TypeVarTuple

import trio

LARGE = 256 * 1024
"""Bytes below which handing work to a thread costs more than doing it (about 1 GB/s) in place."""

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


async def in_thread_if_large(
    size: int, function: Callable[[*Arguments], Result], *arguments: *Arguments
) -> Result:
    """Call `function`, which works on `size` bytes, in a worker thread when they are many."""
    if size < LARGE:
        return function(*arguments)
    return await trio.to_thread.run_sync(function, *arguments)


async def join(parts: Sequence[bytes | memoryview]) -> bytes:
    """Join the parts of a message, each copied once."""
    return await in_thread_if_large(sum(map(len, parts)), b"".join, parts)
