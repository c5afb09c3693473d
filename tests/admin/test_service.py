"""The admin surface of a running SuperLink, over real HTTP."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
import trio

from superlink_trio import SuperLink, SuperLinkConfig, run_superlink


async def get(link: SuperLink, path: str) -> tuple[int, str]:
    address = link.admin_address
    assert address is not None

    def ask() -> tuple[int, str]:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    return await trio.to_thread.run_sync(ask)


@pytest.fixture
async def link(nursery: trio.Nursery) -> SuperLink:
    config = SuperLinkConfig(
        driver_api_address="127.0.0.1:0",
        grpc_rere_fleet_api_address="127.0.0.1:0",
        admin_address="127.0.0.1:0",
    )
    link: SuperLink = await nursery.start(run_superlink, config)
    return link


async def test_it_is_well(link: SuperLink) -> None:
    assert await get(link, "/livez") == (200, "ok\n")
    assert await get(link, "/readyz") == (200, "ok\n")
    await link.stop()


async def test_its_status_names_every_part(link: SuperLink) -> None:
    status, text = await get(link, "/status")
    document: dict[str, Any] = json.loads(text)
    assert status == 200
    states = {part["path"]: part["state"] for part in document["parts"]}
    apis = [f"superlink/apis/{name}" for name in ("admin", "driver", "fleet")]
    parts = ["superlink", "superlink/state", "superlink/apis", *apis]
    assert states == dict.fromkeys(parts, "ready")
    assert document["addresses"]["superlink/apis/driver"] == str(link.driver_address)
    assert document["faults"] == []
    await link.stop()


async def test_nothing_else_is_there(link: SuperLink) -> None:
    status, _ = await get(link, "/etc/passwd")
    assert status == 404
    await link.stop()


async def test_nothing_is_served_unasked(nursery: trio.Nursery) -> None:
    config = SuperLinkConfig(
        driver_api_address="127.0.0.1:0", grpc_rere_fleet_api_address="127.0.0.1:0"
    )
    link: SuperLink = await nursery.start(run_superlink, config)
    assert link.admin_address is None
    assert "superlink/apis/admin" not in link.status()
    await link.stop()
