"""The admin surface of a running SuperLink, over real HTTP."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
import trio
from operators import get, watched_config

from superlink_trio import SuperLink, run_superlink


@pytest.fixture
async def link(nursery: trio.Nursery) -> SuperLink:
    link: SuperLink = await nursery.start(run_superlink, watched_config())
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
    link: SuperLink = await nursery.start(run_superlink, watched_config(admin_address=None))
    assert link.admin_address is None
    assert "superlink/apis/admin" not in link.status()
    await link.stop()


def test_what_only_operators_need_is_not_imported_for_others() -> None:
    script = "import sys, superlink_trio.superlink; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"opentelemetry", "prometheus_client", "starlette"} & set(ran.stdout.split())


async def test_its_tasks_are_shown_where_they_wait(link: SuperLink) -> None:
    status, text = await get(link, "/tasks")
    assert status == 200
    assert re.search(r"── superlink/apis/fleet: .*serve_grpc:\d+ ", text)
    await link.stop()
