"""The overview of a SuperLink that works, as /status gives it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from operators import a_round, get, watched_config

from superlink_trio import SuperLink, run_superlink


async def document_of(link: SuperLink) -> dict[str, Any]:
    # It is put together once a second.
    await trio.sleep(1.1)
    _, text = await get(link, "/status")
    document: dict[str, Any] = json.loads(text)
    return document


@pytest.fixture
async def link(nursery: trio.Nursery) -> SuperLink:
    link: SuperLink = await nursery.start(run_superlink, watched_config())
    return link


async def test_it_follows_a_round(link: SuperLink) -> None:
    steps = a_round(link)

    async def go_on() -> None:
        await trio.to_thread.run_sync(next, steps, None)

    await go_on()
    document = await document_of(link)
    [node] = document["nodes"]["shown"]
    [run] = document["runs"]
    [under_way] = run["rounds"]
    assert (document["nodes"]["known"], document["nodes"]["online"]) == (1, 1)
    assert document["flower"] is None
    assert node["online"]
    assert node["task"]["run_id"] == run["run_id"]
    assert (node["task"]["round"], node["task"]["kind"]) == ("1", "train")
    assert document["tasks"]["by_state"]["handed over"]["count"] == 1
    assert (under_way["asked"], under_way["answered"], under_way["ended"]) == (1, 0, None)
    assert [each["node_id"] for each in under_way["waiting_for"]] == [node["node_id"]]

    await go_on()
    document = await document_of(link)
    assert document["nodes"]["shown"][0]["task"] is None
    [after] = document["runs"][0]["rounds"]
    assert (after["answered"], after["errors"], after["missing"]) == (1, 0, 0)
    assert after["began"] <= after["ended"] <= document["time"]
    await link.stop()
