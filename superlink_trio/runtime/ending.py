"""The end of runs whose processes have no SuperLink any more, or have ended."""

from __future__ import annotations

import logging
from contextlib import suppress

import trio

from superlink_trio.state import StateUnavailable
from superlink_trio.state.messages import MessageState
from superlink_trio.wire.messages import Outcome

_log = logging.getLogger(__name__)

STOPPED = "the SuperLink was stopped"
"""Why a run has failed that was under way then."""

# Seconds in which that has to be noted.
_PATIENCE = 2.0


async def fail_run(state: MessageState, run_id: int, reason: str) -> None:
    """Note that a run has failed, unless it is over already; in a cancelled block too."""
    failed = True
    # Where that cannot be noted, the state fails it in a minute: its process is silent.
    with trio.move_on_after(_PATIENCE, shield=True), suppress(StateUnavailable):
        failed = await state.finish_run(run_id, Outcome.FAILED, reason)
    if failed:
        _log.warning("Run %d failed: %s", run_id, reason, extra={"run_id": run_id})
