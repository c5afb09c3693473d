"""`flwr run` of 1.42 without SuperNodes: simulated by Flower's own program."""

from __future__ import annotations

import pytest
import trio
from interop.today import Today

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
