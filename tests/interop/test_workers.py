"""Flower of today as it is installed, around a SuperLink of two workers over PostgreSQL."""

from __future__ import annotations

import os
import signal

import pytest
import trio
from interop.today import Today
from peering.processes import lines_of
from postgresql import the_server

pytestmark = [
    pytest.mark.interop,
    pytest.mark.long,
    pytest.mark.once,
    pytest.mark.beyond("is one process"),
]


async def test_a_run_goes_on_when_the_worker_that_started_it_is_killed(today: Today) -> None:
    database = await trio.to_thread.run_sync(the_server().new_schema)
    with trio.fail_after(180):
        link = await today.superlink("--workers", "2", "--database", database)
        await today.node(link)
        await today.node(link, "1.26.1")
        await link.nodes(2)
        run = await today.run(today.app(), rounds=2, stall=1)
        await run.line("configure_train")
        before = today.processes("flwr-serverapp")
        first, _ = link.program.children()
        os.kill(first, signal.SIGKILL)
        await link.program.line("worker-1 restarts")
        assert today.processes("flwr-serverapp") == before
        # The log may have been followed at the first: then `flwr run` has ended with it.
        log = await today.told("log", (await today.newest_run())["run-id"], "mine")
        assert '"sum": [1.0, 2.0]' in log
        assert (await today.newest_run())["status"] == "finished:completed"
        await today.none_of("flwr-serverapp")
        log_of_second = [line for line in lines_of(link.program.lines) if line.get("worker") == 2]
        assert [line for line in log_of_second if "collected" in line["event"]]
        assert await link.program.terminate() < 10
        assert link.program.process.returncode == 0
