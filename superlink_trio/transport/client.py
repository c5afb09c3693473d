"""Calls of an API from outside, one at a time: what a command needs that tries a server."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeAlias

import attrs
import grpc

from superlink_trio.config import Address
from superlink_trio.logs.wording import described

Send: TypeAlias = Callable[[str, bytes, float], bytes]
"""Make the call of this name with a serialised request, within so many seconds; give the answer.

Raises NotAnswered.
"""

Begin: TypeAlias = Callable[[str, bytes, float], Callable[[], bytes]]
"""Send such a request; give what waits for its answer. Both raise NotAnswered."""

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


def over_http(
    address: Address,
    trust: Trust,
    *,
    tls: bool,
    folder: str,
    headers: Callable[[], Mapping[str, str]] = dict,
) -> Begin:
    """Call over HTTP what is below a path, with a connection for each call, as Flower's nodes do.

    With `tls` and no roots, those of the system are trusted. `headers` gives what a call has
    besides. Raises ssl.SSLError for roots that are none.
    """
    roots = None if trust.roots is None else trust.roots.decode()
    context = ssl.create_default_context(cadata=roots) if tls else None

    def begin(name: str, request: bytes, seconds: float) -> Callable[[], bytes]:
        connection = (
            http.client.HTTPConnection(address.host, address.port, timeout=seconds)
            if context is None
            else http.client.HTTPSConnection(
                address.host, address.port, timeout=seconds, context=context
            )
        )
        path = re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
        with _told_as_not_answered(connection):
            connection.request("POST", f"{folder}/{path}", request, {**_MEDIA, **headers()})

        def end() -> bytes:
            with _told_as_not_answered(connection):
                response = connection.getresponse()
                body = response.read()
            connection.close()
            if response.status != http.client.OK:
                raise NotAnswered(str(response.status), _said(body))
            return body

        return end

    return begin


def at_once(begin: Begin) -> Send:
    """Wait for each answer as soon as its request is sent."""
    return lambda name, request, seconds: begin(name, request, seconds)()


def _said(body: bytes) -> str:
    """Give what an error says: our own are JSON, with a detail."""
    text = body.decode(errors="replace").strip()
    with suppress(ValueError):
        document = json.loads(text)
        if isinstance(document, dict) and isinstance(document.get("detail"), str):
            return str(document["detail"])
    return text


@contextmanager
def _told_as_not_answered(connection: http.client.HTTPConnection) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise NotAnswered("", described(error).strip()) from None
