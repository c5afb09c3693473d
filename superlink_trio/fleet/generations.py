"""Two generations of the Fleet API under one name, as gRPC carries them.

Flower 1.8 to 1.11 and 1.23 to 1.39 call both of them `flwr.proto.Fleet`. Two of their calls have
the same name too: what is asked tells which is meant.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from google.protobuf.message import DecodeError

from superlink_trio.rpc import Api, Caller, Unary
from superlink_trio.wire import messages_pb2 as pb


def both(tasks: Api, messages: Api) -> Api:
    """Make one API of both generations, which have to share their holds."""
    unary = {
        **messages.unary,
        **tasks.unary,
        "GetRun": _either(_names_a_node, messages.unary["GetRun"], tasks.unary["GetRun"]),
        "GetFab": _either(_names_a_run, messages.unary["GetFab"], tasks.unary["GetFab"]),
    }
    return attrs.evolve(
        tasks,
        unary=unary,
        leased={**messages.leased, **tasks.leased},
    )


def _either(is_new: Callable[[bytes], bool], new: Unary, old: Unary) -> Unary:
    async def answer(raw: bytes, caller: Caller) -> bytes:
        return await (new if is_new(raw) else old)(raw, caller)

    return answer


def _names_a_node(raw: bytes) -> bool:
    # Field 1 is a message; that of the older request is a number.
    return raw.startswith(b"\x0a")


def _names_a_run(raw: bytes) -> bool:
    try:
        return bool(pb.GetFabRequest.FromString(raw).run_id)
    except DecodeError:
        return False
