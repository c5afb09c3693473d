"""The admin surface of a running SuperLink, over real HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from typing import Any

import pytest
import trio
from operators import ask, follow, get, watched_config

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


async def test_the_page_may_load_and_run_what_is_in_it_alone(link: SuperLink) -> None:
    answer = await ask(link, "GET", "/")
    html, policy = answer.body, answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        [inline] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"""\s(src|style|on\w+)=["']""", html)
    await link.stop()


async def test_every_path_has_a_head(link: SuperLink) -> None:
    for path in ("/", "/events", "/livez", "/readyz", "/status", "/metrics"):
        answer = await ask(link, "HEAD", path)
        assert (answer.status, answer.body) == (200, ""), path
    await link.stop()


async def test_a_name_of_somebody_else_is_refused(link: SuperLink) -> None:
    assert (await get(link, "/status", Host="evil.example"))[0] == 421
    await link.stop()


async def test_pages_are_told_of_a_stop(link: SuperLink) -> None:
    async with trio.open_nursery() as nursery:
        first = trio.Event()

        async def watch() -> None:
            events = await follow(link, first)
            assert events == ["overview", "stopping"]

        nursery.start_soon(watch)
        await first.wait()
        with trio.fail_after(5):
            await link.stop()


async def test_it_is_said_when_others_may_read(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    config = watched_config(admin_address="0.0.0.0:0")
    link: SuperLink = await nursery.start(run_superlink, config)
    [line] = [record.getMessage() for record in caplog.records if "can read" in record.getMessage()]
    assert "0.0.0.0" in line
    assert (await get(link, "/livez", Host="superlink.example"))[0] == 200
    await link.stop()


async def test_nothing_else_is_there(link: SuperLink) -> None:
    status, text = await get(link, "/etc/passwd")
    assert status == 404
    assert "/status" in text
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
