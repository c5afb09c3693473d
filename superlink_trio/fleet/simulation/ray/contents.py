"""Contents on their way to the driver: one file each, however many nodes get it.

A round sends one model to a thousand nodes. It is written to a file once, which the driver maps,
gives to Ray's object store and removes: a file that lives for so short a time is memory that two
processes share, and unlike /dev/shm it is not limited to the 64 MB that a container has by default.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from superlink_trio.fleet.simulation.ray.frames import Forget, Frames, Share

# A content that nobody waits for is kept until another one is: the next job often has it as well,
# and one model more is what the object store can bear.
_KEPT = 1


@attrs.define(eq=False)
class _Content:
    number: int
    digest: bytes
    content: bytes
    users: int = 0
    shared: bool = False
    lock: trio.Lock = attrs.field(factory=trio.Lock)


class Contents:
    """The contents that the driver knows. `directory` is private to the two of us."""

    def __init__(self, directory: Path, frames: Frames) -> None:
        self._directory = directory
        self._frames = frames
        self._last = 0
        # What was used last comes last.
        self._known: OrderedDict[bytes, _Content] = OrderedDict()
        self._by_identity: dict[int, _Content] = {}

    @asynccontextmanager
    async def shared(self, content: bytes | None) -> AsyncIterator[int | None]:
        """Let the driver know a content within the block, and give its number; None for None."""
        if content is None:
            yield None
            return
        known = await self._find(content)
        known.users += 1
        try:
            async with known.lock:
                if not known.shared:
                    await self._share(known)
            yield known.number
        finally:
            known.users -= 1
            self._tidy()

    async def _find(self, content: bytes) -> _Content:
        known = self._by_identity.get(id(content))
        if known is None:
            digest = await trio.to_thread.run_sync(_digest, content)
            known = self._known.get(digest)
            if known is None:
                self._last += 1
                known = _Content(self._last, digest, content)
                self._known[digest] = known
                # It holds the object, so that its id is no other's.
                self._by_identity[id(content)] = known
        self._known.move_to_end(known.digest)
        return known

    async def _share(self, known: _Content) -> None:
        path = self._directory / f"content-{known.number}"
        await trio.to_thread.run_sync(path.write_bytes, known.content)
        self._frames.send(Share(known.number, path))
        known.shared = True

    def _tidy(self) -> None:
        unused = [known for known in self._known.values() if not known.users]
        for known in unused[: max(0, len(unused) - _KEPT)]:
            del self._known[known.digest], self._by_identity[id(known.content)]
            if known.shared:
                self._frames.send(Forget(known.number))


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
