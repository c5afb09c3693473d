"""Calls of an API from outside, one at a time: what a command needs that tries a server."""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Callable
from typing import TypeAlias

import attrs
import grpc

from superlink_trio.config import Address
from superlink_trio.logs.wording import described

Send: TypeAlias = Callable[[str, bytes, float], bytes]
"""Make the call of this name with a serialised request, within so many seconds; give the answer.

Raises NotAnswered.
"""

_MEDIA = {"Content-Type": "application/protobuf", "Accept": "application/protobuf"}


class NotAnswered(Exception):
    """A call had no good answer. `code` is gRPC's or HTTP's; empty where nothing came at all."""

    def __init__(self, code: str, said: str) -> None:
        super().__init__(f"{code}: {said}" if code else said)
        self.code = code


@attrs.frozen(kw_only=True)
class Trust:
    """PEM contents: whom a client trusts, and how it proves who it is."""

    roots: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None


def over_grpc(address: Address, service: str, trust: Trust) -> Send:
    """Call a service over a channel of its own: TLS with roots to trust, plain without."""
    if trust.roots is None:
        channel = grpc.insecure_channel(str(address))
    else:
        credentials = grpc.ssl_channel_credentials(trust.roots, trust.key, trust.certificate)
        channel = grpc.secure_channel(str(address), credentials)

    def send(name: str, request: bytes, seconds: float) -> bytes:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            f"/{service}/{name}", None, None
        )
        try:
            return call(request, timeout=seconds)
        except grpc.RpcError as error:
            raise NotAnswered(error.code().name, error.details() or "") from None

    return send


def over_rest(address: Address, trust: Trust, *, tls: bool) -> Send:
    """Call the Fleet API over REST, with a connection for each call, as Flower's nodes do.

    With `tls` and no roots, those of the system are trusted.
    """
    roots = None if trust.roots is None else trust.roots.decode()
    context = ssl.create_default_context(cadata=roots) if tls else None

    def send(name: str, request: bytes, seconds: float) -> bytes:
        connection = (
            http.client.HTTPConnection(address.host, address.port, timeout=seconds)
            if context is None
            else http.client.HTTPSConnection(
                address.host, address.port, timeout=seconds, context=context
            )
        )
        path = re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
        try:
            connection.request("POST", f"/api/v0/fleet/{path}", request, _MEDIA)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NotAnswered("", described(error).strip()) from None
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise NotAnswered(str(response.status), body.decode(errors="replace").strip())
        return body

    return send
