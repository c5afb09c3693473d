"""The end of runs whose processes have no SuperLink any more, or have ended."""

from __future__ import annotations

from contextlib import suppress

import trio

from superlink_trio.state import StateUnavailable
from superlink_trio.state.messages import MessageState
from superlink_trio.wire.messages import Outcome

STOPPED = "the SuperLink was stopped"
"""Why a run has failed that was under way then."""

# Seconds in which that has to be noted.
_PATIENCE = 2.0


async def fail_run(state: MessageState, run_id: int, reason: str) -> bool:
    """Note that a run has failed, in a cancelled block too; say whether it was not over yet."""
    failed = True
    # Where that cannot be noted, the state fails it in a minute: its process is silent.
    patience = trio.CancelScope(shield=True, deadline=trio.current_time() + _PATIENCE)
    with patience, suppress(StateUnavailable):
        failed = await state.finish_run(run_id, Outcome.FAILED, reason)
    return failed
