"""Simulated nodes that run apps of Flower 1.9, under its own server-app."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from interop.peers import REFERENCE, Peers, Round
from simulations import runs

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(REFERENCE is not None, reason="Flower simulates in a program of its own"),
]

NODES = 100
GRACE = 2.0
CLEARING_UP = 2.0
"""Seconds until all is gone after the apps' grace; half a second, where nobody else is at work."""


@pytest.fixture(params=["process", "ray"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """Through which an app that works tells its pid."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


async def worker_at_work(pipe: Path) -> int:
    """Wait until an app is at work; gives its worker's pid."""
    text = await trio.to_thread.run_sync(pipe.read_text, abandon_on_cancel=True)
    return int(text)


async def test_a_federation_of_a_hundred_nodes(backend: str, peers: Peers) -> None:
    with trio.fail_after(90):
        superlink = await peers.simulation("simulated:app", nodes=NODES, backend=backend)
        rounds = await peers.federate(superlink, clients=NODES)
    assert rounds == [Round(n, n, failures=0) for n in (1, 2, 3)]


async def test_an_app_that_raises_on_some_nodes(backend: str, peers: Peers) -> None:
    with trio.fail_after(90):
        superlink = await peers.simulation("simulated:failing", nodes=NODES, backend=backend)
        rounds = await peers.federate(superlink, clients=NODES, rounds=2)
    assert rounds == [Round(n, n, failures=NODES // 10) for n in (1, 2)]


async def test_an_app_that_cannot_be_imported(backend: str, peers: Peers, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import flwr\nimport a_module_that_nobody_has\n")
    with trio.fail_after(60):
        program = await peers.simulating(
            *("--insecure", "--vce", "--client-app", "broken:app", "--app-dir", str(tmp_path)),
            *("--num-supernodes", "3", "--backend", backend),
        )
        assert await program.end() == 1
    told = "\n".join(program.lines)
    assert "No module named 'a_module_that_nobody_has'" in told
    assert "broken.py" in told
    assert "line 2" in told


async def test_a_worker_that_is_killed_costs_its_task_only(
    backend: str, peers: Peers, pipe: Path
) -> None:
    with trio.fail_after(90):
        superlink = await peers.simulation(
            "simulated:stalling", nodes=10, backend=backend, PIPE=str(pipe)
        )
        async with trio.open_nursery() as nursery:
            rounds: list[Sequence[Round]] = []

            async def federate() -> None:
                rounds.append(await peers.federate(superlink, clients=10))

            nursery.start_soon(federate)
            os.kill(await worker_at_work(pipe), signal.SIGKILL)
    assert rounds == [[Round(1, 1, failures=1), Round(2, 2, failures=0), Round(3, 3, failures=0)]]


async def test_sigterm_during_a_round(backend: str, peers: Peers, pipe: Path) -> None:
    with trio.fail_after(60):
        superlink = await peers.simulation(
            *("simulated:stalling", "--grace", str(GRACE)),
            nodes=10,
            backend=backend,
            PIPE=str(pipe),
        )
        await peers.server_app(superlink, clients=10)
        worker = await worker_at_work(pipe)
        superlink.program.process.terminate()
        with trio.fail_after(GRACE + CLEARING_UP):
            assert await superlink.program.end() == 0
        assert not runs(worker)


async def test_nodes_keep_their_state_for_each_run(backend: str, peers: Peers) -> None:
    """Two runs at once; in each, a node has trained as often as there were rounds."""
    rounds: list[Sequence[Round]] = []
    with trio.fail_after(90):
        superlink = await peers.simulation("simulated:recalling", nodes=20, backend=backend)

        async def federate() -> None:
            rounds.append(await peers.federate(superlink, clients=20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(federate)
            nursery.start_soon(federate)
    assert rounds == [[Round(n, n, failures=0) for n in (1, 2, 3)]] * 2
