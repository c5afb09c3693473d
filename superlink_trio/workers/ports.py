"""The ports of all workers: found free, and held for as long as there is a worker.

Over HTTP all accept from one socket, which the parent has: who connects while a worker is away is
taken by another. gRPC opens its ports itself, so each worker has its own socket at the same
address (SO_REUSEPORT), and the kernel chooses one for each connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs

from superlink_trio.config import Address, Apis, SuperLinkConfig
from superlink_trio.config.places import Place
from superlink_trio.leaves import Sockets
from superlink_trio.transport.grpc.listen import reserve
from superlink_trio.transport.listening import needed_by


@attrs.frozen
class Ports:
    """Where workers listen."""

    descriptors: Mapping[str, Sequence[int]]
    """Of sockets that listen, by the options that say their addresses."""
    chosen: Mapping[str, Any]
    """The options that say where, with the ports that were chosen."""

    def applied(self, config: SuperLinkConfig) -> SuperLinkConfig:
        """Let a config name the ports that are held."""
        return attrs.evolve(config, **self.chosen)


@asynccontextmanager
async def open_ports(config: SuperLinkConfig, apis: Apis, given: Sockets) -> AsyncIterator[Ports]:
    """Hold the ports of these APIs inside the block; what is `given` listens already.

    Raises ValueError for a malformed address, AddressError if one cannot be had.
    """
    descriptors = {name: [each.fileno() for each in sockets] for name, sockets in given.items()}
    chosen: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        for place in config.places(apis):
            if place.field in given:
                continue
            with needed_by(place.api):
                port = await _open(place, stack, descriptors)
            if place.field == "host":
                chosen["port"] = port
            else:
                chosen[place.field] = Address(place.address.host, port)
        yield Ports(descriptors, chosen)


async def _open(place: Place, stack: AsyncExitStack, descriptors: dict[str, list[int]]) -> int:
    """Listen, or hold what workers listen on; give the port."""
    if not place.http:
        sockets = [stack.enter_context(each) for each in await reserve(place.address)]
        return int(sockets[0].getsockname()[1])
    # What gRPC alone does not need.
    from superlink_trio.transport.http import listen

    listeners = await listen(place.address)
    for listener in listeners:
        stack.push_async_callback(listener.aclose)
    descriptors[place.field] = [listener.socket.fileno() for listener in listeners]
    return int(listeners[0].socket.getsockname()[1])
