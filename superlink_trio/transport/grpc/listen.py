"""Where a gRPC server listens: finding out why it cannot, which grpc does not tell."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

import grpc.aio

from superlink_trio.config.address import Address
from superlink_trio.transport.grpc.credentials import MakeCredentials
from superlink_trio.transport.listening import AddressError, look_up


async def resolve(address: Address, *, shared: bool = False) -> list[Address]:
    """Return the numeric addresses that `address` stands for, and check that they are free.

    Where they are `shared`, others that share them too are no obstacle.

    Raises ValueError if the address is not well formed, AddressError if its host is unknown or
    one of the addresses is taken or forbidden, or if no network interface has any of them.
    Without this grpc would do one of three things: fail with the same text for every reason, listen
    on some of the addresses only, or take a malformed address for another one.
    """
    usable = []
    absent = None
    for family, kind, protocol, _, where in await look_up(address):
        try:
            _probe(family, kind, protocol, where, shared=shared)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise AddressError.because(address, error) from error
            absent = error  # a machine without IPv6 may still know localhost as ::1
        else:
            usable.append(Address(str(where[0]), address.port))
    if not usable and absent is not None:
        raise AddressError.because(address, absent) from absent
    return usable


async def reserve(address: Address) -> list[socket.socket]:
    """Hold an address for processes that share it, and let nobody else have it meanwhile.

    Nothing connects to these sockets, one for each of the numeric addresses, all with the same
    port. Raises what `resolve` does.
    """
    held: list[socket.socket] = []
    port = address.port
    try:
        for each in await resolve(address):
            held.append(_hold(each.host, port))
            port = held[-1].getsockname()[1]
    except OSError as error:
        for one in held:
            one.close()
        if isinstance(error, AddressError):
            raise
        raise AddressError.because(address, error) from error
    return held


def bind(
    server: grpc.aio.Server,
    addresses: Iterable[Address],
    credentials: MakeCredentials | None,
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
                port = server.add_secure_port(text, credentials())
        except RuntimeError as error:
            cause = "the address was taken a moment ago"
            if credentials is not None:
                cause += ", or certificate and key are not usable"
            raise AddressError(address, f"gRPC refused it; {cause}") from error
    return port


def _hold(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Whoever else probes an address that is held with SO_REUSEADDR, and that nobody listens on yet,
    # takes it for free. So that is for what lingers of a server which had the port for itself.
    for lingering in (False, True):
        one = socket.socket(family, socket.SOCK_STREAM)
        try:
            _as_grpc_does(one, shared=True)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(lingering))
            one.bind((host, port))
        except OSError:
            one.close()
            if lingering:
                raise
        else:
            break
    return one


def _probe(
    family: int, kind: int, protocol: int, where: tuple[object, ...], *, shared: bool
) -> None:
    with socket.socket(family, kind, protocol) as probe:
        # No listen(): clients that are waiting for a restart would connect to the probe.
        _as_grpc_does(probe, shared=shared)
        probe.bind(where)


def _as_grpc_does(one: socket.socket, *, shared: bool) -> None:
    # Connections of an earlier server that linger are no obstacle.
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
