"""What has to be said even if the database is not available now."""

from __future__ import annotations

from collections import deque

import trio

from superlink_trio.state.durable.engine import Step, Transaction
from superlink_trio.state.durable.writer import Writer
from superlink_trio.state.interface import StateUnavailable

_TRY_AGAIN_AFTER = 1.0


class Acknowledgements:
    """Steps that confirm, or put back: each is performed in the end, if the store lives on."""

    def __init__(self, writer: Writer[Transaction]) -> None:
        self._writer = writer
        self._pending: deque[Step[None]] = deque()
        self._some = trio.Event()

    async def perform(self, step: Step[None]) -> None:
        """Perform a step now, or later where that cannot be."""
        try:
            await self._writer.do(step, durable=False, patience=0.0)
        except StateUnavailable:
            self._add(step)
        except trio.Cancelled:
            self._add(step)
            raise

    def add_once(self, step: Step[None]) -> None:
        """Perform a step soon, unless it is pending already."""
        if step not in self._pending:
            self._add(step)

    def _add(self, step: Step[None]) -> None:
        self._pending.append(step)
        self._some.set()

    async def flush(self) -> None:
        """Perform what is pending, in order, until cancelled."""
        while True:
            if not self._pending:
                self._some = trio.Event()
            await self._some.wait()
            try:
                await self._writer.do(self._pending[0], durable=False)
                self._pending.popleft()
            except StateUnavailable:
                await trio.sleep(_TRY_AGAIN_AFTER)
