"""Work on large byte strings, kept off the event loop."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, TypeVarTuple

import trio

LARGE = 256 * 1024
"""Bytes below which handing work to a thread costs more than doing it (about 1 GB/s) in place."""

HUGE = 8 * 1024 * 1024
"""Bytes of a message from which on its pieces are worth giving back to the system."""

ENOUGH = 48 * 1024 * 1024
"""Bytes of such messages that have to come together before they are: it costs some milliseconds."""

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


def _find_trim(environment: Mapping[str, str]) -> Callable[[int], int] | None:
    """Find glibc's way to give memory back, unless it is told by its settings what to keep."""
    told = (environment.get("GLIBC_TUNABLES", ""), *environment)
    if any("trim_threshold" in setting.lower() for setting in told):
        return None
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim


_trim = _find_trim(os.environ)

# Sizes of the messages since the last time. The memory belongs to the process, and so does this.
_arrived: list[int] = []


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


async def give_back(size: int) -> None:
    """Give the system back what a message of `size` bytes, and others before it, took on the way.

    A message arrives in thousands of pieces. Freed, they stay with the C library, which often has
    no use for them when the next one comes: without this a process is some messages larger than
    it need be, for good. Source: https://man7.org/linux/man-pages/man3/malloc_trim.3.html
    """
    if size >= HUGE and _trim is not None:
        _arrived.append(size)
        if sum(_arrived) >= ENOUGH:
            _arrived.clear()
            await trio.to_thread.run_sync(_trim, 0)
