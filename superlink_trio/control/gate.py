"""Who may steer: `flwr run` executes code on this machine."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import attrs

from superlink_trio.credentials import ControlTokens, Denied
from superlink_trio.logs import Throttle
from superlink_trio.rpc import Api, Caller, Duplex, Refused, Status, Streaming, Unary

_log = logging.getLogger(__name__)

# Where `flwr` puts a token over gRPC. Over HTTP it is a bearer token (RFC 6750).
_FLOWERS_HEADER = "flwr-oidc-access-token"

# By the bare word Flower's command line understands that its token is to be renewed.
_CHALLENGE = 'Bearer realm="superlink-trio"'

_Admit = Callable[[str, Caller], AbstractContextManager[None]]
"""Lets a call, by its name, in for as long as the block. Raises Refused."""


def gated(api: Api, tokens: ControlTokens | None, *, denied: Status) -> Api:
    """Answer only who shows one of the tokens; where there are none, only this machine.

    A token is asked from callers on this machine too: others may work there, and a proxy there
    makes everybody such a caller. `denied` is the status of calls without a token that counts.
    """
    admit = _admit_this_machine if tokens is None else _Tokens(tokens, denied).admit
    return attrs.evolve(
        api,
        unary={name: _unary(name, handler, admit) for name, handler in api.unary.items()},
        streaming={
            name: _streaming(name, handler, admit) for name, handler in api.streaming.items()
        },
    )


def _unary(name: str, handler: Unary, admit: _Admit) -> Unary:
    async def answer(raw: bytes, caller: Caller) -> bytes:
        with admit(name, caller):
            return await handler(raw, caller)

    return answer


def _streaming(name: str, handler: Streaming, admit: _Admit) -> Streaming:
    async def converse(duplex: Duplex, caller: Caller) -> None:
        with admit(name, caller):
            await handler(duplex, caller)

    return converse


@contextmanager
def _admit_this_machine(_: str, caller: Caller) -> Iterator[None]:
    host = ipaddress.ip_address(caller.host.strip("[]"))
    # gRPC listens for both kinds of addresses with one socket.
    host = getattr(host, "ipv4_mapped", None) or host
    if not host.is_loopback:
        raise Refused(
            Status.PERMISSION_DENIED,
            f"flwr is answered on the machine of the SuperLink only, and this is {host}: it "
            "executes code there. `ssh -L 8000:127.0.0.1:8000 MACHINE` brings its port to yours, "
            "and with --control-token-file the SuperLink lets in whoever has a token.",
        )
    if not caller.own_connection:
        raise Refused(
            Status.PERMISSION_DENIED,
            "flwr is answered on the machine of the SuperLink only, and this call came through a "
            "proxy there, from wherever: with --control-token-file the SuperLink lets in whoever "
            "has a token.",
        )
    yield


@attrs.frozen
class _Tokens:
    """Lets in who shows a token."""

    tokens: ControlTokens
    denied: Status
    throttle: Throttle = attrs.field(factory=lambda: Throttle(_log))

    @contextmanager
    def admit(self, call: str, caller: Caller) -> Iterator[None]:
        shown = _shown(caller.metadata)
        known = None if shown is None else self.tokens.find(shown)
        if known is None:
            raise self._refusal(call, caller, "no token" if shown is None else "an unknown token")
        try:
            with self.tokens.calling(known):
                yield
        except Denied:
            raise self._refusal(call, caller, "a token that counts no more") from None

    def _refusal(self, call: str, caller: Caller, shown: str) -> Refused:
        self.throttle.log(
            logging.WARNING,
            caller.host,
            "Access denied to flwr on %s: it showed %s (%s)",
            *(caller.host, shown, call),
        )
        caller.headers["www-authenticate"] = _CHALLENGE
        return Refused(
            self.denied,
            f"This SuperLink asks for a token, and was shown {shown}: flwr takes it from its "
            "credentials.yaml, other programs send 'Authorization: Bearer TOKEN'. The operator of "
            "the SuperLink has it, and its document security.md says how to enter it.",
            reason="token",
        )


def _shown(metadata: Mapping[str, str]) -> str | None:
    scheme, _, token = metadata.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else metadata.get(_FLOWERS_HEADER)
