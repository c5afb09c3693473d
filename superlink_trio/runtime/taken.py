"""Runs whose processes SuperExecs have started: nobody here has a handle of them.

They go on when the SuperLink stops, if other processes serve the same runs; otherwise they end.
When such a run is over, the next call of its process is refused, and the process ends by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

import attrs
import trio

from superlink_trio.config import Address
from superlink_trio.runtime.ending import STOPPED, fail_run
from superlink_trio.state import StateUnavailable
from superlink_trio.state.messages import MessageState

_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class TakenRuns:
    """A service that ends the runs that SuperExecs have, when the last SuperLink stops."""

    state: MessageState
    address: Callable[[], Address]
    """Of the Runtime API."""

    async def __call__(
        self,
        *,
        stopping: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stopping`."""
        # Started anew, this has stopped before.
        with suppress(StateUnavailable):
            await self.state.serve_again()
        _log.info(
            "Runs wait until a SuperExec takes them: flower-superexec --runtime-api-address %s",
            self.address(),
        )
        task_status.started()
        try:
            await stopping.wait()
        finally:
            # Each has its own bound.
            with trio.CancelScope(shield=True):
                if not await self._go_on():
                    async with trio.open_nursery() as nursery:
                        for run in await self.state.claimed_runs():
                            nursery.start_soon(fail_run, self.state, run.run_id, STOPPED)

    async def _go_on(self) -> bool:
        """Say whether runs go on, as other processes serve them."""
        with suppress(StateUnavailable):
            return await self.state.stop_serving()
        return False
