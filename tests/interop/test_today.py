"""Flower of today as it is installed: SuperNodes of 1.42 and 1.26, and `flwr run` of 1.42."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio
from certificates import Authority
from interop.peers import Peers, Round
from interop.raw_node import join_raw
from interop.today import EXAMPLE, LEGACY, Today

pytestmark = [
    pytest.mark.interop,
    pytest.mark.long,
    pytest.mark.beyond("serves one generation only"),
]

GRACE = 2.0

# Two minutes, and 10 GB of memory for what holds the model: for whoever asks for it.
LARGE = "INTEROP_LARGE"

# What apps are replaced by. `flwr run` imports an app before it sends it.
RAISES = """
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp


def fail(*_):
    raise RuntimeError("it was asked to fail")


app = ServerApp() if __name__.endswith("server") else ClientApp()
(app.main() if __name__.endswith("server") else app.train())(fail)
"""
BROKEN = """
import sys

app = None
if sys.argv[1:2] != ["run"]:
    import nothing_of_this_name
"""


@pytest.mark.smoke
async def test_a_run_from_nothing_to_its_log(today: Today) -> None:
    with trio.fail_after(90):
        link = await today.superlink()
        for _ in range(2):
            await today.node(link)
        await link.nodes(2)
        run = await today.run(today.app(EXAMPLE))
        assert await run.end() == 0
        newest = await today.newest_run()
        log = await today.told("log", newest["run-id"], "mine")
    assert newest["status"] == "finished:completed"
    sums = "The sums after each round: [3.0, 6.0, 9.0]"
    assert sums in run.lines
    assert sums in log


async def test_a_strategy_of_flwr_server_and_numpy_clients(today: Today) -> None:
    with trio.fail_after(90):
        link = await today.superlink()
        await today.node(link)
        await today.node(link, "1.26.1")
        await link.nodes(2)
        run = await today.run(today.app(LEGACY))
        assert await run.end() == 0
        assert (await today.newest_run())["status"] == "finished:completed"
    told = [line for line in run.lines if line.startswith('{"sums"')]
    # Its first weights are asked of a node.
    assert told == ['{"sums": [33.0, 33.0]}']


async def test_both_generations_at_the_same_time(today: Today, peers: Peers) -> None:
    older: list[Round] = []

    with trio.fail_after(120):
        link = await today.superlink()
        await today.node(link)
        await today.node(link, "1.26.1")
        await peers.client(link.superlink, "1.9.0", step=1)
        await peers.client(link.superlink, "1.9.0", step=3)
        await link.nodes(2)

        async def federate() -> None:
            older.extend(await peers.federate(link.superlink, clients=2, rounds=1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(federate)
            told = await today.ran(today.app())
    assert told["sum"] == [1]
    assert older == [Round(1, 2, failures=0)]


async def test_an_app_that_fails_says_why_and_nodes_live_on(today: Today) -> None:
    with trio.fail_after(150):
        link = await today.superlink()
        await today.node(link)
        await link.nodes(1)
        for app, reason in (
            (today.app(server=RAISES), "it was asked to fail"),
            (today.app(server=BROKEN), "No module named 'nothing_of_this_name'"),
        ):
            run = await today.run(app, nodes=1)
            await run.end()
            newest = await today.newest_run()
            assert newest["status"] == "finished:failed"
            assert reason in newest["status-details"]
            await run.line(rf"Run {newest['run-id']} failed: .*{reason}")
        for app, reason in (
            (today.app(client=RAISES), "it was asked to fail"),
            (today.app(client=BROKEN), "No module named 'nothing_of_this_name'"),
        ):
            run = await today.run(app, nodes=1)
            await run.end()
            # Whether that ends a run is for its strategy to say.
            await run.line(rf"error in reply from node .*{reason}")
        assert (await today.ran(today.app(), nodes=1))["sum"] == [1]


async def test_nodes_keep_their_state_for_a_run_and_no_longer(today: Today) -> None:
    with trio.fail_after(120):
        link = await today.superlink()
        await today.node(link)
        await link.nodes(1)
        app = today.app()
        first = await today.ran(app, nodes=1, rounds=2, arrays=12)
        second = await today.ran(app, nodes=1)
    assert first == {"sum": [12, 24], "asked": [2, 4]}
    assert second == {"sum": [1], "asked": [2]}


async def test_a_run_is_stopped(today: Today) -> None:
    with trio.fail_after(90):
        link = await today.superlink()
        await today.node(link)
        await link.nodes(1)
        run = await today.run(today.app(), nodes=1, stall=2)
        await run.line("configure_train")
        newest = await today.newest_run()
        await today.told("stop", newest["run-id"], "mine")
        await run.end()
        assert (await today.newest_run())["status"] == "finished:stopped"
        # The node may be at its work still.
        assert (await today.ran(today.app(), nodes=1))["sum"] == [1]
        await today.none_of("flwr-serverapp")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
async def test_a_superlink_ends_in_a_run_and_its_nodes_come_back_to_the_next(
    ending: signal.Signals, today: Today
) -> None:
    with trio.fail_after(120):
        old = await today.superlink("--grace", str(GRACE))
        await today.node(old)
        await today.node(old, "1.26.1")
        await old.nodes(2)
        app = today.app()
        run = await today.run(app, stall=3)
        await run.line("configure_train")
        assert today.processes("flwr-serverapp")
        await old.program.terminate(ending)
        # It does not react at once where it was killed: what is left looks after itself.
        with trio.fail_after(GRACE if ending is signal.SIGTERM else 20):
            await today.none_of("flwr-serverapp")
        await run.end()
        if ending is signal.SIGTERM:
            await run.line(r"Run \d+ failed: the SuperLink was stopped")
        await today.superlink(http=old.http, fleet=old.superlink.fleet)
        assert (await today.ran(app))["sum"] == [1]


async def test_a_run_goes_on_when_its_superlink_was_killed(today: Today, tmp_path: Path) -> None:
    database = "--database", tmp_path / "state.db"
    with trio.fail_after(120):
        old = await today.superlink(*database)
        await today.node(old)
        await today.node(old, "1.26.1")
        await old.nodes(2)
        run = await today.run(today.app(), rounds=3, stall=2)
        await run.line("configure_train")
        before = today.processes("flwr-serverapp")
        await old.program.terminate(signal.SIGKILL)
        await run.end()
        await today.superlink(*database, http=old.http, fleet=old.superlink.fleet)
        assert today.processes("flwr-serverapp") == before
        # It is followed to its end.
        log = await today.told("log", (await today.newest_run())["run-id"], "mine")
        assert '"sum": [1.0, 2.0, 3.0]' in log
        assert (await today.newest_run())["status"] == "finished:completed"
        await today.none_of("flwr-serverapp")


async def test_superexecs_run_what_is_left_to_them(today: Today, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue()
    secrets = right, wrong = tmp_path / "right", tmp_path / "wrong"
    for path in secrets:
        path.write_text(f"{path.name}\n")
        path.chmod(0o600)
    with trio.fail_after(150):
        link = await today.superlink(
            *("--isolation", "process", "--superexec-auth-secret-file", right),
            *("--certificates", *authority.files),
            ca=authority.files[0],
        )
        await today.node(link)
        await link.nodes(1)
        stranger = await today.superexec(link, "--superexec-auth-secret-file", wrong)
        await link.program.line("A SuperExec at .* is refused: it has another secret")
        await stranger.end()
        run = await today.run(today.app(), nodes=1)
        await today.superexec(link, "--superexec-auth-secret-file", right)
        assert await run.end() == 0
        assert (await run.report("sum"))["sum"] == [1]
        log = await today.told("log", (await today.newest_run())["run-id"], "mine")
        assert '"sum": [1.0]' in log

        # Nobody here can kill its process: it ends with its next call.
        stalled = await today.run(today.app(), nodes=1, stall=30)
        await stalled.line("configure_train")
        assert today.processes("flwr-serverapp")
        await today.told("stop", (await today.newest_run())["run-id"], "mine")
        await stalled.end()
        with trio.fail_after(10):
            await today.none_of("flwr-serverapp")


@pytest.mark.alone
async def test_stopping_in_the_middle_of_a_run_takes_no_longer_than_grace(today: Today) -> None:
    with trio.fail_after(60):
        link = await today.superlink("--grace", str(GRACE))
        await today.node(link)
        await link.nodes(1)
        run = await today.run(today.app(), nodes=1, stall=30)
        await run.line("configure_train")
        assert await link.program.terminate() < GRACE + 0.5
        assert link.program.process.returncode == 0


async def test_nodes_that_die_do_not_hold_a_run_for_ever(today: Today) -> None:
    with trio.fail_after(90):
        link = await today.superlink()
        await today.node(link)
        dying = [await join_raw(link.http) for _ in range(3)]
        await link.nodes(4)
        run = await today.run(today.app(), nodes=1)
        pulled = [await node.pull() for node in dying]
        _, confirming, pushing = zip(dying, pulled, strict=True)
        for node, instruction in (confirming, pushing):
            await node.confirm(*instruction)
        node, (message, _) = pushing
        await node.push_half(message)
        assert await run.end() == 0
    assert [
        line for line in run.lines if "aggregate_train: Received 1 results and 3 failures" in line
    ]
    assert (await run.report("sum"))["sum"] == [1]


@pytest.mark.timeout(900)
@pytest.mark.skipif(LARGE not in os.environ, reason=f"it takes minutes: {LARGE}=1 runs it")
async def test_a_model_of_a_gibibyte(today: Today, tmp_path: Path) -> None:
    weights = 2**27  # of 8 bytes each
    with trio.fail_after(800):
        link = await today.superlink("--database", tmp_path / "state.db")
        await today.node(link)
        await link.nodes(1)
        before = link.program.resident()
        told = await today.ran(today.app(), nodes=1, size=weights)
    assert told["sum"] == [weights]
    assert link.program.peak() - before < 400 * 10**6


async def test_only_nodes_that_were_registered_over_tls(today: Today, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue()
    private, public = today.key()
    with trio.fail_after(90):
        link = await today.superlink(
            *("--certificates", *authority.files, "--enable-supernode-auth"), ca=authority.files[0]
        )
        stranger = await today.node(link)
        # It hangs then, as it does under any SuperLink.
        await stranger.line("Nodes do not register themselves here")
        await today.told("supernode", "register", public, "mine")
        await today.node(link, key=private)
        await link.nodes(1)
        assert (await today.ran(today.app(), nodes=1))["sum"] == [1]
