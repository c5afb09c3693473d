"""What is remembered of runs: their config, and the Contexts of their nodes.

No driver says that its run is over. So a run that is silent for a day is forgotten, and where there
is no room for a Context, those of the run that has been silent for longest go.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import attrs

from superlink_trio.state.interface import FORGET
from superlink_trio.wire.runs import Scalar

# Bytes that a run, or a Context, takes besides what is in it; about.
_RUN, _CONTEXT = 1024, 128

_log = logging.getLogger(__name__)


@attrs.define(eq=False)
class RunMemory:
    """What is remembered of one run."""

    run_id: int
    config: Mapping[str, Scalar]
    contexts: dict[int, bytes] = attrs.field(factory=dict)
    """By node; one that is empty is left out."""
    size: int = _RUN
    used_at: float = 0.0

    def size_with(self, node_id: int, context: bytes) -> int:
        """Give the bytes that the run would take if the node had this Context."""
        return self.size - _size(self.contexts.get(node_id, b"")) + _size(context)


class Runs:
    """Runs, in the order in which they were used last. `limit`: the bytes that they may take."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._runs: dict[int, RunMemory] = {}
        self._size = 0

    def use(self, run_id: int, now: float) -> RunMemory | None:
        """Give what is remembered of a run that has a task now; None where nothing is."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            self._runs[run_id] = run
            run.used_at = now
        return run

    def add(self, run_id: int, config: Mapping[str, Scalar], now: float) -> RunMemory:
        """Remember a run, unless it is remembered."""
        for old in [run for run in self._runs.values() if run.used_at <= now - FORGET]:
            self._forget(old)
        run = self.use(run_id, now)
        if run is None:
            run = self._runs[run_id] = RunMemory(run_id, config, used_at=now)
            run.size += sum(len(name) + len(str(value)) for name, value in config.items())
            self._size += run.size
            self._evict(now)
        return run

    def fault(self, run: RunMemory, node_id: int, context: bytes) -> str | None:
        """Give the reason why a Context cannot be kept, whatever else is dropped for it."""
        size = run.size_with(node_id, context)
        if size <= self._limit:
            return None
        return (
            f"the Contexts of its run's nodes would take {size} bytes, and all that are kept may "
            f"take {self._limit}: let each node keep less, or use fewer nodes"
        )

    def keep(self, run: RunMemory, node_id: int, context: bytes, now: float) -> None:
        """Keep a node's Context, and drop those of other runs where there is no room for it."""
        # It may have been forgotten while the app was at work.
        run = self.add(run.run_id, run.config, now)
        size = run.size_with(node_id, context)
        self._size += size - run.size
        run.size = size
        if context:
            run.contexts[node_id] = context
        else:
            run.contexts.pop(node_id, None)
        self._evict(now)

    def forget(self, run_id: int) -> None:
        """Forget a run, which is over."""
        run = self._runs.get(run_id)
        if run is not None:
            self._forget(run)

    def _evict(self, now: float) -> None:
        for run in list(self._runs.values())[:-1]:
            if self._size <= self._limit:
                break
            self._forget(run)
            if run.contexts:
                _log.warning(
                    "There is no room for the Contexts of all runs: those of run %d, which was "
                    "used last %.0f s ago, are dropped; all may take %d bytes",
                    *(run.run_id, now - run.used_at, self._limit),
                )

    def _forget(self, run: RunMemory) -> None:
        del self._runs[run.run_id]
        self._size -= run.size


def _size(context: bytes) -> int:
    return _CONTEXT + len(context) if context else 0
