"""How peers are called."""

from __future__ import annotations

import pytest

from superlink_trio.transport.grpc.peers import peer_name


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("ipv4:127.0.0.1:4711", "127.0.0.1:4711"),
        ("ipv6:%5B::1%5D:4711", "[::1]:4711"),
        ("ipv6:[::1]:4711", "[::1]:4711"),
        ("ipv6:%5Bfe80::1%25eth0%5D:4711", "[fe80::1%eth0]:4711"),
        ("unix:", "unix:"),
        ("ipv4:%0A", "ipv4:%0A"),
        ("", ""),
    ],
)
def test_peers_are_written_as_addresses(uri: str, name: str) -> None:
    assert peer_name(uri) == name
