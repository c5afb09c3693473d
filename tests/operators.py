"""A SuperLink with an admin surface, and what asks it."""

from __future__ import annotations

import http.client
from typing import Any

import trio

from superlink_trio import SuperLink, SuperLinkConfig


def watched_config(**changes: Any) -> SuperLinkConfig:
    addresses = dict.fromkeys(
        ("driver_api_address", "grpc_rere_fleet_api_address", "admin_address"), "127.0.0.1:0"
    )
    return SuperLinkConfig(**{"insecure": True, **addresses, **changes})


async def get(link: SuperLink, path: str, **headers: str) -> tuple[int, str]:
    """Give an answer's status and text."""
    address = link.admin_address
    assert address is not None

    def ask() -> tuple[int, str]:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    return await trio.to_thread.run_sync(ask)
