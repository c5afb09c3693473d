"""Who is at the other end of a connection, as gRPC names them and as people do."""

from __future__ import annotations

from urllib.parse import unquote

from superlink_trio.config import Address


def peer_name(uri: str) -> str:
    """Write a peer as an address: `[::1]:4711` for gRPC's `ipv6:%5B::1%5D:4711`.

    What is no such URI (a Unix socket's) stays as it is.

    Source: https://github.com/grpc/grpc/blob/master/doc/naming.md
    """
    scheme, _, rest = uri.partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return uri
    try:
        return str(Address.parse(unquote(rest)))
    except ValueError:
        return uri
