from __future__ import annotations

import logging
import sys

import pytest
import trio
import trio.testing

from superlink_trio.processes.children import ChildProcess

_LOG = logging.getLogger("superlink_trio.simulation.test")


async def test_what_was_printed_is_logged_even_if_nobody_has_read_it_yet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    child = await ChildProcess.start(
        lambda descriptor: [sys.executable, "-c", "print('one'); print('two'); raise SystemExit(3)"]
    )
    with trio.fail_after(20):
        await child.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.end, 0.0)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(child.log_output, _LOG, "it: ")
    assert caplog.messages == ["it: one", "it: two"]
    assert list(child.last_lines) == ["one", "two"]
    assert child.ending == "ended with status 3"


async def test_what_somebody_else_keeps_open_is_not_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    # What leads a session of its own is no longer ours to end.
    program = (
        "import os, time\n"
        "print('one', flush=True)\n"
        "if not os.fork():\n"
        "    os.setsid()\n"
        "    time.sleep(5)\n"
    )
    child = await ChildProcess.start(lambda descriptor: [sys.executable, "-c", program])
    with trio.fail_after(4):
        await child.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.log_output, _LOG)
            assert await child.end(0.0) == []
    assert caplog.messages == ["one"]
