"""The Control API over gRPC, as `flwr` of 1.21 to 1.36 asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import trio

from superlink_trio.config import Address, SuperLinkConfig
from superlink_trio.control.api import control_api
from superlink_trio.control.gate import gated
from superlink_trio.credentials import ControlTokens
from superlink_trio.fleet.signatures import check_key
from superlink_trio.rpc import Api, Caller, CallObserver, Refused, Status, Unary, observed
from superlink_trio.state.messages import MessageState
from superlink_trio.transport.grpc import GrpcService
from superlink_trio.transport.listening import fitting, needed_by
from superlink_trio.wire import messages_pb2 as pb

# Sent by 1.30 and later.
_VERSION = "flwr-package-version"


@attrs.frozen(kw_only=True)
class OlderControl:
    """Serves `flwr` over gRPC. Each life of the service makes its API anew."""

    current: Callable[[], SuperLinkConfig]
    state: MessageState
    simulation: pb.SimulationConfig | None
    """How runs are simulated; None: they are not."""
    tokens: ControlTokens | None
    grpc: GrpcService
    address: Callable[[], Address]
    """Where to listen, asked for at each start."""
    observers: Sequence[CallObserver]

    async def __call__(
        self, *, stopping: trio.Event, task_status: trio.TaskStatus[Address]
    ) -> None:
        """Serve until `stopping`; `task_status` gets the address that was bound."""
        api = for_older(control_api(self.state, check_key, self.simulation))
        # The text of a refusal is shown by `flwr` of these releases, but not of UNAUTHENTICATED.
        api = gated(api, self.tokens, denied=Status.PERMISSION_DENIED)
        with needed_by("the Control API over gRPC"):
            await self.grpc.serve(
                [observed(api, self.observers)],
                self.address(),
                connections=fitting(self.current().max_connections),
                elsewhere=_elsewhere,
                stopping=stopping,
                task_status=task_status,
            )


def for_older(api: Api) -> Api:
    """Let a Control API refuse what releases before 1.30 would misread."""
    show = api.unary["ShowFederation"]
    return attrs.evolve(api, unary={**api.unary, "ShowFederation": _of_known_release(show)})


def _of_known_release(handler: Unary) -> Unary:
    """Refuse callers that do not say their release.

    The fields of a federation were numbered anew in 1.27, and before 1.30 nobody says which it is.
    """

    async def answer(raw: bytes, caller: Caller) -> bytes:
        if _VERSION not in caller.metadata:
            raise Refused(
                Status.FAILED_PRECONDITION,
                "This is served to flwr of 1.30 and later: `flwr ls` and `flwr supernode ls` tell "
                "the runs and the nodes.",
            )
        return await handler(raw, caller)

    return answer


def _elsewhere(service: str) -> str | None:
    match service:
        case "flwr.proto.Control":
            return "accounts, federations, connectors and artifacts are Flower's own"
        case "flwr.proto.Fleet" | "flwr.proto.GrpcAdapter":
            return "flwr connects here. Nodes connect to the Fleet API, 9092 by default"
        case _:
            return None
