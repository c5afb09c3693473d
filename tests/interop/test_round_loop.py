"""start_server, with unmodified Flower clients and with Flower's own strategies."""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from certificates import Authority
from interop.peers import REFERENCE, VERSIONS, Peers
from peering.processes import SuperLink

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(REFERENCE is not None, reason="start_server is not a SuperLink's"),
]


async def losses(server: SuperLink) -> Sequence[list[float]]:
    history = (await server.program.report("history"))["history"]
    distributed: Sequence[list[float]] = history["losses_distributed"]
    return distributed


@pytest.mark.parametrize("version", VERSIONS)
async def test_clients_of_one_release(version: str, peers: Peers) -> None:
    with trio.fail_after(120):
        server = await peers.round_loop(clients=2)
        first = await peers.client(server, version, transport="grpc-bidi", step=1)
        second = await peers.client(server, version, transport="grpc-bidi", step=3)
        assert await losses(server) == [[1, 2], [2, 4], [3, 6]]
        assert [await program.end() for program in (server.program, first, second)] == [0, 0, 0]


async def test_clients_of_all_releases_over_tls(peers: Peers, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue()
    with trio.fail_after(120):
        server = await peers.round_loop(clients=4, certificates=authority.files)
        clients = [
            await peers.client(server, version, transport="grpc-bidi", step=step)
            for step, version in enumerate(VERSIONS)
        ]
        assert await losses(server) == [[1, 1.5], [2, 3], [3, 4.5]]
        assert [await client.end() for client in clients] == [0, 0, 0, 0]


async def test_a_client_that_is_killed_at_work_is_a_failure_of_that_round(peers: Peers) -> None:
    with trio.fail_after(120):
        server = await peers.round_loop(clients=1, rounds=2)
        killed = await peers.client(server, "1.9.0", transport="grpc-bidi", stall=60)
        await killed.line("^stalling")
        await peers.client(server, "1.11.1", transport="grpc-bidi", step=2)
        await server.program.line("joined", nth=2)
        killed.process.kill()
        assert (await server.program.report("fit"))["failures"] == 1
        assert (await losses(server))[-1] == [2, 2]


async def test_a_client_that_takes_too_long_is_let_go(peers: Peers) -> None:
    with trio.fail_after(120):
        server = await peers.round_loop(clients=2, rounds=1, round_timeout=2)
        late = await peers.client(server, "1.9.0", transport="grpc-bidi", stall=60)
        await peers.client(server, "1.10.0", transport="grpc-bidi", step=2)
        assert (await server.program.report("fit"))["failures"] == 1
        # Two have to be there before the evaluation.
        await peers.client(server, "1.8.0", transport="grpc-bidi")
        assert await losses(server) == [[1, 2]]
        await server.program.line("no answer within 2 s")
        assert await server.program.end() == 0
        late.process.kill()


def tracebacks(lines: Sequence[str]) -> list[str]:
    """Give where a program raised; a thread of grpc's may, when its channel closes just then."""
    return [
        line
        for before, line in itertools.pairwise(["", *lines])
        if "Traceback" in line and not before.startswith("Exception in thread")
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_signal_releases_clients_idle_and_at_work(
    version: str, number: signal.Signals, peers: Peers
) -> None:
    with trio.fail_after(120):
        server = await peers.round_loop(clients=2)
        idle = await peers.client(server, version, transport="grpc-bidi")
        working = await peers.client(server, version, transport="grpc-bidi", stall=math.inf)
        await working.line("^stalling")
        server.program.process.send_signal(number)
        assert await server.program.end() == 0
        await working.write("finish\n")
        ended = (await idle.end(), await working.end())
        # 1.8's clients take the end of a stream at work for an error; they end, with a traceback.
        if version != "1.8.0":
            assert ended == (0, 0)
            assert not [*tracebacks(idle.lines), *tracebacks(working.lines)]


@pytest.mark.parametrize(
    "strategy",
    [
        "FedAvg",
        "FedAvg, not in place",
        "FedAdam",
        "FedMedian",
        "Krum",
        "FedProx",
        "DPFedAvgFixed",
    ],
)
async def test_strategies_of_flower_give_the_same_model_as_under_its_own_server(
    strategy: str, peers: Peers
) -> None:
    with trio.fail_after(120):
        program = await peers.beside("strategies.py", strategy)
        report = await program.report("strategy")
    assert report["difference"] <= 1e-6
    assert report["moved"] > 0.01


async def test_the_mean_is_that_of_flower(peers: Peers) -> None:
    with trio.fail_after(120):
        program = await peers.beside("means.py")
        assert await program.report("compared")
        assert await program.end() == 0
