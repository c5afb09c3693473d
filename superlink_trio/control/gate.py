"""Who may steer: `flwr run` executes code here, and Flower's command line shows no credentials."""

from __future__ import annotations

import ipaddress

import attrs

from superlink_trio.rpc import Api, Caller, Duplex, Refused, Status, Streaming, Unary


def for_this_machine_only(api: Api) -> Api:
    """Answer only callers on this machine, whatever addresses the server listens on.

    A proxy on this machine makes everybody such a caller: it has to ask for credentials itself.
    """
    return attrs.evolve(
        api,
        unary={name: _unary(handler) for name, handler in api.unary.items()},
        streaming={name: _streaming(handler) for name, handler in api.streaming.items()},
    )


def _unary(handler: Unary) -> Unary:
    async def answer(raw: bytes, caller: Caller) -> bytes:
        _check(caller)
        return await handler(raw, caller)

    return answer


def _streaming(handler: Streaming) -> Streaming:
    async def converse(duplex: Duplex, caller: Caller) -> None:
        _check(caller)
        await handler(duplex, caller)

    return converse


def _check(caller: Caller) -> None:
    host = caller.host.strip("[]")
    if not ipaddress.ip_address(host).is_loopback:
        raise Refused(
            Status.PERMISSION_DENIED,
            f"flwr has to run on the machine of the SuperLink, and not on {host}: it executes code "
            "there. `ssh -L 8000:127.0.0.1:8000 MACHINE` brings its port to yours.",
        )
