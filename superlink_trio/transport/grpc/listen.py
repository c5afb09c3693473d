"""Where a gRPC server listens: finding out why it cannot, which grpc does not tell."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable

import grpc
import grpc.aio
import trio

from superlink_trio.address import Address

_HINTS = {
    errno.EADDRINUSE: "another program listens there: stop it, or choose another port",
    errno.EACCES: "ports below 1024 need privileges: choose a higher one",
    errno.EADDRNOTAVAIL: "no network interface of this machine has that address",
}


class AddressError(OSError):
    """A server cannot listen on an address. `errno` says why, where that is known."""

    def __init__(self, address: Address, reason: str, code: int | None = None) -> None:
        super().__init__(f"cannot listen on {address}: {reason}")
        self.errno = code


async def resolve(address: Address) -> list[Address]:
    """Return the numeric addresses that `address` stands for, and check that they are free.

    Raises ValueError if the address is not well formed, AddressError if its host is unknown or
    one of the addresses is taken or forbidden, or if no network interface has any of them.
    Without this grpc would do one of three things: fail with the same text for every reason, listen
    on some of the addresses only, or take a malformed address for another one.
    """
    Address.parse(str(address))
    try:
        found = await trio.socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise AddressError(address, f"{error.strerror}: {address.host!r}", error.errno) from error
    usable = []
    absent = None
    for family, kind, protocol, _, where in found:
        try:
            _probe(family, kind, protocol, where)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise _named(address, error) from error
            absent = error  # a machine without IPv6 may still know localhost as ::1
        else:
            usable.append(Address(str(where[0]), address.port))
    if not usable and absent is not None:
        raise _named(address, absent) from absent
    return usable


def bind(
    server: grpc.aio.Server,
    addresses: Iterable[Address],
    credentials: grpc.ServerCredentials | None,
) -> int:
    """Bind a server that is not started yet to each of the addresses, all with the same port.

    Returns the port, which the system chose if it is 0 in the addresses. The kernel accepts
    connections from now on. Raises AddressError.
    """
    port = 0
    for address in addresses:
        text = str(Address(address.host, port or address.port))
        try:
            if credentials is None:
                port = server.add_insecure_port(text)
            else:
                port = server.add_secure_port(text, credentials)
        except RuntimeError as error:
            cause = "the address was taken a moment ago"
            if credentials is not None:
                cause += ", or certificate and key are not usable"
            raise AddressError(address, f"gRPC refused it; {cause}") from error
    return port


def _probe(family: int, kind: int, protocol: int, where: tuple[object, ...]) -> None:
    with socket.socket(family, kind, protocol) as probe:
        # As grpc does it: connections of an earlier server that linger are no obstacle. And no
        # listen(): clients that are waiting for a restart would connect to the probe.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(where)


def _named(address: Address, error: OSError) -> AddressError:
    code = error.errno
    reason = os.strerror(code) if code is not None else str(error)
    hint = _HINTS.get(code) if code is not None else None
    return AddressError(address, f"{reason} ({hint})" if hint else reason, code)
