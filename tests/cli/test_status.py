"""`superlink-trio status`, against a SuperLink in the same process."""

from __future__ import annotations

import io
import json
import signal
import time
from typing import Any

import pytest
import trio
from operators import get, watched_config
from peering.processes import OURS, running
from rich.console import Console

from superlink_trio import SuperLink, cli, run_superlink
from superlink_trio.cli.picture import picture


@pytest.fixture
async def link(nursery: trio.Nursery) -> SuperLink:
    link: SuperLink = await nursery.start(run_superlink, watched_config())
    return link


async def status(*options: object) -> int:
    return await trio.to_thread.run_sync(cli.main, ["status", *map(str, options)])


async def test_all_is_well(link: SuperLink, capsys: pytest.CaptureFixture[str]) -> None:
    assert await status(link.admin_address) == 0
    out = capsys.readouterr().out
    assert out.startswith("✓ All is well")
    for address in link.addresses().values():
        assert str(address) in out
    assert "Nodes: 0 online of 0 known" in out
    await link.stop()


async def test_the_address_may_be_in_the_environment(
    link: SuperLink, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUPERLINK_ADMIN_ADDRESS", str(link.admin_address))
    assert await status("--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["addresses"]["superlink/apis/admin"] == str(link.admin_address)
    await link.stop()


async def test_nothing_answers(capsys: pytest.CaptureFixture[str]) -> None:
    [closed] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"127.0.0.1:{closed.socket.getsockname()[1]}"
    await closed.aclose()
    assert await status(address) == 1
    assert f"--admin-address {address}" in capsys.readouterr().err


async def test_another_port_is_no_admin_surface(
    link: SuperLink, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await status(link.driver_address) == 1
    assert "does not answer as an admin surface does" in capsys.readouterr().err
    await link.stop()


async def test_watching_ends_with_a_signal_and_says_how_it_was(link: SuperLink) -> None:
    command = (*OURS, "status", "--watch", str(link.admin_address))
    async with running("status", *command) as program:
        with trio.fail_after(30):
            await program.line("All is well", nth=2)
        await program.terminate(signal.SIGINT)
        assert program.process.returncode == 0
    await link.stop()


async def document_of(link: SuperLink) -> dict[str, Any]:
    _, text = await get(link, "/status")
    document: dict[str, Any] = json.loads(text)
    return document


def drawn(document: dict[str, Any], width: int = 160) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(picture(document))
    return out.getvalue()


async def test_faults_come_first(link: SuperLink) -> None:
    document = await document_of(link)
    document["faults"] = ["superlink/apis/fleet is restarting"]
    assert drawn(document).startswith("▲ superlink/apis/fleet is restarting")
    await link.stop()


async def test_what_strangers_say_is_shown_as_it_is(link: SuperLink) -> None:
    document, now = await document_of(link), time.time()
    kind = "\x1b[2J[bold]train[/bold]"
    task = {"run_id": "-7", "round": "3", "kind": kind, "since": now - 125}
    document["nodes"] = {
        "known": 30,
        "online": 1,
        "shown": [{"node_id": "42", "online": True, "heard": now - 2, "task": task}],
    }
    each = {
        "round": "3",
        "kind": kind,
        "began": now - 125,
        "ended": None,
        "asked": 30,
        "answered": 1,
        "errors": 1,
        "missing": 29,
        "waiting_for": [{"node_id": "42", "since": now - 125}],
    }
    document["runs"] = [{"run_id": "-7", "rounds": [each]}]
    message = {**task, "message_id": "m"}
    document["flower"] = {
        "known": 3,
        "online": 2,
        "runs": {"pending": 1, "running": 4},
        "shown_nodes": [
            {
                "node_id": "43",
                "name": kind,
                "state": "online",
                "heard": now - 2,
                "message": message,
                "messages": 3,
            }
        ],
        "shown_runs": [
            {
                "run_id": "9",
                "fab_id": f"me/{kind}",
                "fab_version": "1.0",
                "status": "failed",
                "since": now - 125,
                "began": now - 130,
                "ended": now - 125,
                "reason": f"first\n{kind}\nlast",
                "round": None,
            }
        ],
    }
    shown = drawn(document)
    assert "\x1b" not in shown
    assert r"\x1b[2J[bold]train[/bold] of run -7, round 3, for 2 min" in shown
    assert "1 of 30" in shown
    assert "SuperNodes: 2 online of 3 known" in shown
    assert "Runs of apps: 1 pending, 4 running" in shown
    assert "for 2 min and 2 more" in shown
    assert r"  \x1b[2J[bold]train[/bold]" in shown
    assert "42 and 28 more" in shown
    assert "and 29 more" in shown
    await link.stop()


async def test_ids_stay_whole_on_a_narrow_terminal(link: SuperLink) -> None:
    document, now = await document_of(link), time.time()
    ids = [str(number) for number in range(9223372036854775801, 9223372036854775807)]
    older_run, older, run, node, away, third = ids
    older_run = f"-{older_run}"
    task = {"run_id": older_run, "round": "3", "kind": "evaluate", "since": now - 125}
    document["nodes"] = {
        "known": 1,
        "online": 1,
        "shown": [{"node_id": older, "online": True, "heard": now - 2, "task": task}],
    }
    each = {
        "round": "12",
        "kind": "evaluate",
        "began": now - 125,
        "ended": None,
        "asked": 1000,
        "answered": 100,
        "errors": 1,
        "missing": 900,
        "waiting_for": [{"node_id": away, "since": now - 125}, {"node_id": third, "since": now}],
    }
    document["runs"] = [{"run_id": older_run, "rounds": [each]}]
    document["flower"] = {
        "known": 2,
        "online": 1,
        "runs": {"running": 1},
        "shown_nodes": [
            {
                "node_id": node,
                "name": "the ward at the end of the corridor",
                "state": "registered",
                "heard": now - 2,
                "message": {**task, "run_id": run, "message_id": "m"},
                "messages": 3,
            }
        ],
        "shown_runs": [
            {
                "run_id": run,
                "fab_id": "a-publisher-with-a-name/an-app-with-a-longer-one",
                "fab_version": "1.0",
                "status": "completed",
                "since": now - 3500,
                "began": now - 3500,
                "ended": None,
                "reason": "",
                "round": {**each, "under_way": 400, "waiting": 500},
            }
        ],
    }
    shown = drawn(document, width=80)
    for one in (older_run, older, run, node, away, third):
        assert one in shown
    assert max(map(len, shown.splitlines())) <= 80
    for word in ("registered", "completed", "evaluate", "answered"):
        assert word in shown
    assert f"Run {run}, round 12, waits for {away}, " in shown
    assert f"{third} and 898 more" in shown
    await link.stop()
