"""What is between a store and its database: connections that a test can break."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

_NAME = ".s.PGSQL.5432"


@attrs.define(eq=False)
class Network:
    """Sockets in `folder` that lead to a server. `broken`: none does."""

    folder: Path
    broken: bool = False
    _open: set[trio.SocketStream] = attrs.field(factory=set)

    async def cut(self) -> None:
        """Break every connection; a server that is at work notices when it is done."""
        self.broken = True
        for stream in tuple(self._open):
            await stream.aclose()

    async def carry(self, near: trio.SocketStream, server: Path) -> None:
        if self.broken:
            await near.aclose()
            return
        self._open.add(near)
        far = await trio.open_unix_socket(server / _NAME)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, near, far)
            nursery.start_soon(self._pump, far, near)

    async def _pump(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        # What cannot be delivered any more is lost, and nobody is told.
        try:
            async for data in source:
                await target.send_all(data)
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return


@asynccontextmanager
async def network(folder: Path, server: Path) -> AsyncIterator[Network]:
    """Carry connections from `folder` to the server in another one, inside the block."""
    made = Network(folder)
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(str(folder / _NAME))
    listener.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            trio.serve_listeners,
            lambda near: made.carry(near, server),
            [trio.SocketListener(listener)],
        )
        try:
            yield made
        finally:
            nursery.cancel_scope.cancel()
