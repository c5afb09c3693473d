from __future__ import annotations

import subprocess
import sys

import pytest
import trio

from superlink_trio.processes.ending import end_session
from superlink_trio.processes.sessions import members

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")

_TWO = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("started", flush=True)
time.sleep(600)
"""


async def test_everybody_in_a_session_ends() -> None:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", _TWO], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert await process.stdout.receive_some(100)
    await process.stdout.aclose()
    assert len(members(process.pid)) == 2
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.wait)
        assert await end_session(process.pid, 30) == []
    assert members(process.pid) == []


async def test_nobody_is_left_to_be_ended() -> None:
    process = await trio.lowlevel.open_process([sys.executable, "-c", ""], start_new_session=True)
    await process.wait()
    assert await end_session(process.pid, 30) == []
