"""gRPC's health checking: which services serve, for probes and load balancers.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs
import trio

from superlink_trio.rpc.holds import Holds
from superlink_trio.rpc.interface import Api, Caller, Duplex, Refused, Status
from superlink_trio.rpc.refusals import parse, unary
from superlink_trio.wire import health_pb2 as pb

SERVICE = "grpc.health.v1.Health"

WHOLE = ""
"""The name that stands for everything together."""

_Response = pb.HealthCheckResponse


class Health:
    """Which services serve. All of a process's servers tell of all of them."""

    def __init__(self, services: Iterable[str]) -> None:
        """Begin with every service, and the whole, not serving yet."""
        self._serving = dict.fromkeys((WHOLE, *services), False)
        self._changed = trio.Event()

    def note(self, service: str, *, serving: bool) -> None:
        """Note whether a service serves now, and tell those who watch."""
        if self._serving[service] != serving:
            self._serving[service] = serving
            self._changed.set()
            self._changed = trio.Event()

    def api(self) -> Api:
        """Make the API for one life of one server."""
        server = _Server(self)
        return Api(
            service=SERVICE,
            unary={"Check": unary(pb.HealthCheckRequest, server.check)},
            leased={},
            streaming={"Watch": server.watch},
            holds=server.holds,
        )

    def status(self, service: str) -> _Response.ServingStatus:
        """Give the status of a service by its name."""
        if service not in self._serving:
            return _Response.SERVICE_UNKNOWN
        return _Response.SERVING if self._serving[service] else _Response.NOT_SERVING

    async def changed(self) -> None:
        """Wait until some status is another."""
        await self._changed.wait()


@attrs.frozen
class _Server:
    health: Health
    holds: Holds = attrs.field(factory=Holds)

    async def check(self, request: pb.HealthCheckRequest, _: Caller) -> _Response:
        status = self.health.status(request.service)
        if status == _Response.SERVICE_UNKNOWN:
            raise Refused(Status.NOT_FOUND, f"no service {request.service[:64]!r} is served here")
        return _Response(status=status)

    async def watch(self, stream: Duplex, _: Caller) -> None:
        told: int | None = None
        service: str | None = None
        # Held from its first moment on, so that it gives way to any other call.
        with self.holds.open(math.inf):
            service = parse(pb.HealthCheckRequest, await stream.receive()).service
            while True:
                status = self.health.status(service)
                if status == told:
                    await self.health.changed()
                else:
                    await stream.send(_Response(status=status).SerializeToString())
                    told = status
        if not self.holds.released:
            raise Refused(
                Status.RESOURCE_EXHAUSTED,
                "This watch gave its place to another call: watch again.",
                reason="max_calls",
            )
        # Said twice, where it was on its way already.
        if service is not None and (status := self.health.status(service)) != told:
            await stream.send(_Response(status=status).SerializeToString())
        raise Refused(Status.UNAVAILABLE, "The server is stopping.")
