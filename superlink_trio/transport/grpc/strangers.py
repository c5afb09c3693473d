"""Calls of what a port does not serve: most are meant for another port, or of another release."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import attrs
import grpc
import grpc.aio

from superlink_trio.logs.throttle import Throttle, shorten
from superlink_trio.rpc import Api
from superlink_trio.transport.grpc.peers import peer_name

_log = logging.getLogger(__name__)

Elsewhere: TypeAlias = Callable[[str], str | None]
"""Says of a service by its full name where it is served, and what to do; None: nobody knows. Of one
that is served here: why a call of it is not."""

_LONGEST_METHOD = 200
"""Characters of a name that a client chose."""


@attrs.frozen(eq=False)
class Strangers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in stubs alone
    """Answers every call that no other handler takes: UNIMPLEMENTED, and what to do about it.

    The log has a line a minute for each host.
    """

    apis: Sequence[Api]
    elsewhere: Elsewhere
    called: Callable[[str], None] = lambda _: None
    """Told of each call's peer, in grpc's words."""
    throttle: Throttle = attrs.field(factory=lambda: Throttle(_log, burst=1))

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Give the handler of a call, whatever it is."""
        path = handler_call_details.method

        async def refuse(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            words = self._words(path)
            peer = context.peer()
            self.called(peer)
            host = peer_name(peer).rpartition(":")[0]
            self.throttle.log(logging.WARNING, host, "A client on %s: %s", host, words)
            context.set_code(grpc.StatusCode.UNIMPLEMENTED)
            context.set_details(f"{words}.")
            return b""

        handler: Any = grpc.stream_unary_rpc_method_handler(refuse)
        return handler  # type: ignore[no-any-return]  # the stubs know no asynchronous handlers

    def _words(self, path: str) -> str:
        service = path.strip("/").rpartition("/")[0]
        name = repr(shorten(path.strip("/"), _LONGEST_METHOD))[1:-1]
        served = [api.service for api in self.apis]
        where = self.elsewhere(service)
        if where is None and service in served:
            return (
                f"{name} is no call of the releases of Flower that are served here: 1.8 to 1.11, "
                "and 1.23 and later where the SuperLink was started with --port"
            )
        return f"{name} is not served on this port: " + (
            where or f"it serves {' and '.join(served)}"
        )
