"""Nodes and runs of today's Flower one by one: in the overview, and as `status` draws them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import trio
from message_rounds import REASON, a_message_round, place_app
from operators import get, watched_config
from rich.console import Console

from superlink_trio import SuperLink, run_superlink
from superlink_trio.admin import Flower
from superlink_trio.admin.flower import MOST_NODES, MOST_RUNS
from superlink_trio.cli.picture import picture
from superlink_trio.fleet import SuperNodes
from superlink_trio.rounds import Rounds
from superlink_trio.state.messages import MemoryMessages, NewRun
from superlink_trio.wire.messages import Outcome
from superlink_trio.wire.runs import Fab


async def document_of(link: SuperLink) -> dict[str, Any]:
    # It is put together once a second.
    await trio.sleep(1.1)
    _, text = await get(link, "/status")
    document: dict[str, Any] = json.loads(text)
    return document


def drawn(document: dict[str, Any]) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(picture(document))
    return out.getvalue()


async def test_it_follows_a_run(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = place_app(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    link: SuperLink = await nursery.start(run_superlink, watched_config(port=0))
    steps = a_message_round(link, told)

    async def go_on() -> dict[str, Any]:
        await trio.to_thread.run_sync(next, steps)
        return await document_of(link)

    document = await go_on()
    flower = document["flower"]
    working, idle = flower["shown_nodes"]
    [run] = flower["shown_runs"]
    assert (flower["known"], working["state"], idle["state"]) == (2, "online", "online")
    assert (working["message"]["run_id"], working["messages"]) == (run["run_id"], 1)
    assert (working["message"]["round"], working["message"]["kind"]) == ("2", "train")
    assert idle["message"] is None
    assert (run["status"], run["fab_id"], run["ended"]) == ("running", "me/app", None)
    latest = run["round"]
    assert (latest["asked"], latest["answered"]) == (2, 0)
    assert (latest["under_way"], latest["waiting"]) == (1, 1)
    words = drawn(document)
    assert "1 waiting, 1 under way, 0 of 2 answered" in words
    assert f"train of run {run['run_id']}, round 2, for" in words

    document = await go_on()
    assert [node["message"] for node in document["flower"]["shown_nodes"]] == [None, None]
    latest = document["flower"]["shown_runs"][0]["round"]
    assert (latest["answered"], latest["under_way"], latest["waiting"]) == (1, 0, 1)
    assert [each["node_id"] for each in latest["waiting_for"]] == [idle["node_id"]]

    document = await go_on()
    [run] = document["flower"]["shown_runs"]
    assert (run["status"], run["reason"]) == ("failed", REASON)
    assert run["began"] <= run["ended"] == run["since"]
    assert "ValueError: no <b>such</b> model" in drawn(document)
    await link.stop()


async def test_so_many_are_shown_and_those_at_work_first() -> None:
    state = MemoryMessages()
    flower = Flower(
        state=state,
        nodes=SuperNodes(most=lambda: 1000, runs=state.live_runs),
        rounds=Rounds(runs=state.live_runs),
    )
    for number in range(MOST_NODES + 10):
        await state.register_node(b"%d" % number, name=f"ward {number}")
    heard = (await state.nodes())[-1].node_id
    flower.nodes.heard(heard, 30.0)
    new = NewRun(fab=Fab(hash="f", content=b"fab"), fab_id="me/app", fab_version="1")
    waiting = await state.create_run(new)
    others = [await state.create_run(new) for _ in range(MOST_RUNS + 10)]
    for run in others:
        await state.finish_run(run.run_id, Outcome.COMPLETED)
    document = (await flower.seen()).document()
    nodes, runs = document["shown_nodes"], document["shown_runs"]
    assert (len(nodes), len(runs)) == (MOST_NODES, MOST_RUNS)
    assert (nodes[0]["node_id"], nodes[0]["name"]) == (str(heard), f"ward {MOST_NODES + 9}")
    assert (nodes[1]["state"], nodes[1]["heard"]) == ("registered", None)
    assert [run["run_id"] for run in runs[:2]] == [str(waiting.run_id), str(others[-1].run_id)]
