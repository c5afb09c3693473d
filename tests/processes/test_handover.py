"""What is told of processes, so that whoever comes next can take them over."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import pytest

from superlink_trio.processes.handover import Handover, SessionLeader

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")


def this_process(purpose: int) -> SessionLeader:
    process = SessionLeader.of(purpose, os.getpid())
    assert process is not None
    return process


def test_what_was_found_counts_until_it_has_ended() -> None:
    told: list[Sequence[SessionLeader]] = []
    found, other = this_process(1), this_process(2)
    handover = Handover(told.append, [found])
    assert handover.take() == [found]
    assert handover.take() == (), "once"
    handover.add(other)
    handover.remove(1)
    handover.remove(1)
    assert told == [(found, other), (other,)]


async def test_who_has_another_ones_id_is_left_alone() -> None:
    process = this_process(1)
    gone = SessionLeader(1, process.pid, process.began - 1)
    await gone.wait()
    gone.kill()
    assert await gone.end(1.0) == ()
