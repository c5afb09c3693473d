"""Addresses to listen on: what they stand for, and why one cannot be had."""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import trio

from superlink_trio.config.address import Address

_log = logging.getLogger(__name__)

# Files that a process needs besides its connections.
_OTHER_FILES = 64

_LOOPBACK = ("127.0.0.1", "::1")

_HINTS = {
    errno.EADDRINUSE: "another program listens there: stop it, or choose another port",
    errno.EACCES: "ports below 1024 need privileges: choose a higher one",
    errno.EADDRNOTAVAIL: "no network interface of this machine has that address",
}

Found: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
"""Family, kind, protocol, canonical name and socket address, as `getaddrinfo` gives them."""


class AddressError(OSError):
    """A server cannot listen on an address. `errno` says why, where that is known."""

    def __init__(self, address: Address, reason: str, code: int | None = None) -> None:
        super().__init__(f"cannot listen on {address}: {reason}")
        self.errno = code

    @classmethod
    def because(cls, address: Address, error: OSError) -> AddressError:
        """Say what an error of the operating system means, and what to do about it."""
        code = error.errno
        reason = os.strerror(code) if code is not None else str(error)
        hint = _HINTS.get(code) if code is not None else None
        return cls(address, f"{reason} ({hint})" if hint else reason, code)


async def look_up(address: Address) -> Sequence[Found]:
    """Find the socket addresses that an address stands for.

    `localhost` is loopback, whatever a name server or a file says, and both of its addresses
    (RFC 6761, 6.3).

    Raises ValueError if it is not well formed, AddressError if its host is unknown.
    """
    Address.parse(str(address))
    found: list[Found] = []
    try:
        for host in _LOOPBACK if address.host.lower() == "localhost" else (address.host,):
            found += await trio.socket.getaddrinfo(
                host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
    except socket.gaierror as error:
        raise AddressError(address, f"{error.strerror}: {address.host!r}", error.errno) from error
    return found


def fitting(connections: int, share: float = 1.0) -> int:
    """Keep a number of connections within a share of the files that the process may open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return connections
    fits = max(1, int((files - _OTHER_FILES) * share))
    if connections <= fits:
        return connections
    _log.info(
        "at most %d connections fit into %sthe limit of %d open files (ulimit -n)",
        *(fits, "this API's share of " if share < 1 else "", files),
    )
    return fits


@contextmanager
def needed_by(api: str) -> Iterator[None]:
    """Note on an error of the operating system which API it was that needed it."""
    try:
        yield
    except OSError as error:
        error.add_note(f"needed by {api}")
        raise
