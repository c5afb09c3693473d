"""What the APIs and the transports that carry them agree on."""

from superlink_trio.rpc.health import WHOLE, Health
from superlink_trio.rpc.holds import Holds
from superlink_trio.rpc.interface import (
    Api,
    Caller,
    ClientGone,
    Duplex,
    Leased,
    Refused,
    Status,
    Streaming,
    Unary,
)
from superlink_trio.rpc.limits import CallLimit
from superlink_trio.rpc.observing import Call, CallLog, CallObserver, observed
from superlink_trio.rpc.refusals import limit_in_words, malformed, parse, unary, with_refusals

__all__ = [
    "WHOLE",
    "Api",
    "Call",
    "CallLimit",
    "CallLog",
    "CallObserver",
    "Caller",
    "ClientGone",
    "Duplex",
    "Health",
    "Holds",
    "Leased",
    "Refused",
    "Status",
    "Streaming",
    "Unary",
    "limit_in_words",
    "malformed",
    "observed",
    "parse",
    "unary",
    "with_refusals",
]
