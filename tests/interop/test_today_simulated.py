"""`flwr run` of 1.42 without SuperNodes: simulated by Flower's own program, or by nodes of ours."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio
from interop.test_today import BROKEN, RAISES
from interop.today import Link, Today
from peering.processes import ANY_PORT

pytestmark = [pytest.mark.interop, pytest.mark.beyond("serves one generation only")]

GRACE = 5.0


async def test_flower_simulates_a_run_and_ends_with_everything_it_has_started(
    beside: Today,
) -> None:
    with trio.fail_after(200):
        simulation = "--simulation", "--num-supernodes", "3"
        link = await beside.superlink(*simulation, "--grace", str(GRACE))
        app = beside.app()
        told = await beside.ran(app, nodes=3, rounds=2)
        assert told == {"sum": [1, 2], "asked": [2, 4]}
        run = await beside.run(app, nodes=3, stall=60)
        await run.line("configure_train")
        await beside.one_of("ray::ClientAppActor")
        assert await link.program.terminate() < GRACE + 0.5
        await run.line(r"Run \d+ failed: the SuperLink was stopped")
        for name in ("flwr-simulation", "raylet", "gcs_server", "ray::"):
            assert not beside.processes(name)


# Nodes of ours

NODES = 10


async def simulating(
    beside: Today, backend: str, *options: str | Path, http: str = ANY_PORT
) -> Link:
    return await beside.superlink(
        *("--num-supernodes", str(NODES), "--backend", backend, "--grace", str(GRACE), *options),
        http=http,
        transport="vce",
    )


def about(**told: list[float]) -> dict[str, object]:
    """What nodes told, as a mean of it comes out."""
    return {name: pytest.approx(values) for name, values in told.items()}


@pytest.mark.parametrize("backend", ["process", "ray"])
async def test_nodes_of_ours_serve_a_run(beside: Today, backend: str) -> None:
    with trio.fail_after(150):
        link = await simulating(beside, backend)
        app = beside.app()
        told = await beside.ran(app, nodes=NODES, rounds=3, arrays=20)
        # What a node remembers, it remembers for a run.
        assert told == about(sum=[20, 40, 60], asked=[2, 4, 6])
        if backend == "process":
            assert await beside.ran(app, nodes=NODES) == about(sum=[1], asked=[2])
        assert await link.program.terminate() < GRACE + 0.5
        assert link.program.process.returncode == 0


async def test_apps_that_fail_on_nodes_of_ours(beside: Today) -> None:
    with trio.fail_after(150):
        link = await simulating(beside, "process")
        for app, reason in (
            (beside.app(client=RAISES), "it was asked to fail"),
            (beside.app(client=BROKEN), "No module named 'nothing_of_this_name'"),
        ):
            run = await beside.run(app, nodes=NODES)
            await run.end()
            await run.line(rf"error in reply from node .*{reason}")
            await link.program.line(f"The app failed on node .*{reason}")
        assert (await beside.ran(beside.app(), nodes=NODES))["sum"] == pytest.approx([1])


async def test_a_run_over_nodes_of_ours_is_stopped_in_its_middle(beside: Today) -> None:
    with trio.fail_after(150):
        await simulating(beside, "process")
        run = await beside.run(beside.app(), nodes=NODES, stall=60)
        await run.line("configure_train")
        await beside.one_of("simulation.process.child")
        await beside.told("stop", (await beside.newest_run())["run-id"], "mine")
        await run.end()
        await beside.none_of("simulation.process.child")
        assert (await beside.ran(beside.app(), nodes=NODES))["sum"] == pytest.approx([1])


async def test_a_run_goes_on_when_a_superlink_with_nodes_of_ours_was_killed(
    beside: Today, tmp_path: Path
) -> None:
    database = "--database", tmp_path / "state.db"
    with trio.fail_after(150):
        old = await simulating(beside, "process", *database)
        run = await beside.run(beside.app(), nodes=NODES, stall=1)
        await run.line("configure_train")
        await beside.one_of("simulation.process.child")
        await old.program.terminate(signal.SIGKILL)
        await run.end()
        await simulating(beside, "process", *database, http=old.http)
        log = await beside.told("log", (await beside.newest_run())["run-id"], "mine")
        assert "aggregate_train: Received 10 results and 0 failures" in log
        assert (await beside.newest_run())["status"] == "finished:completed"
