"""How a session of processes is ended from outside, by a Trio task."""

from __future__ import annotations

import trio

from superlink_trio.processes.sessions import kill_session, members

# Seconds between two looks whether all of them have ended.
_LOOK = 0.01


async def end_session(session: int, within: float) -> list[int]:
    """Kill every process of a session and wait for their end; give the ids of those left over.

    `within`: seconds that this may take.
    """
    with trio.move_on_after(within):
        kill_session(session)
        while members(session):
            await trio.sleep(_LOOK)
            kill_session(session)
    return members(session)
