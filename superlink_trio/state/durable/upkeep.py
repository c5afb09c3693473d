"""What a durable store does by itself: what has to be done in the end, and what now and then."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio

from superlink_trio.state.durable.engine import Engine, Step, Transaction
from superlink_trio.state.durable.heartbeats import WRITE_BEHIND, Heartbeats
from superlink_trio.state.durable.writer import Writer
from superlink_trio.state.interface import HEARTBEAT_TIMEOUT, Clock, StateUnavailable

_TRY_AGAIN_AFTER = 1.0
_SWEEP_EVERY = 60.0
_RENEW_EVERY = HEARTBEAT_TIMEOUT / 3

# What was sent has arrived by then, or never will.
_PURGE_AFTER = 1.0

# Another process notifies this one when it changes something. Where it cannot, time has to: it was
# killed just before, or it cannot reach us.
_LOOK_AFTER = 2.0


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


class Upkeep:
    """Keeps the database small, its heartbeats fresh, and this process up to date."""

    def __init__(
        self,
        engine: Engine,
        write: Callable[[Step[Any]], Awaitable[Any]],
        heartbeats: Heartbeats,
        clock: Clock,
    ) -> None:
        """`write`: performs a step that a crash of the machine may undo."""
        self._engine = engine
        self._write = write
        self._heartbeats = heartbeats
        self._now = clock
        self._collected = trio.Event()
        self.sweeps = 0
        """How many have ended."""

    def start(self, nursery: trio.Nursery) -> None:
        """Begin everything in a nursery; it goes on until cancelled."""
        nursery.start_soon(self._write_heartbeats)
        nursery.start_soon(self._renew_heartbeats)
        nursery.start_soon(self._sweep)
        nursery.start_soon(self._purge)
        if not self._engine.private:
            nursery.start_soon(self._listen)

    def collected(self) -> None:
        """Note that answers were collected, so that there is something to purge."""
        self._collected.set()

    async def _write_heartbeats(self) -> None:
        while True:
            await self._heartbeats.wait()
            await trio.sleep(WRITE_BEHIND)
            with suppress(StateUnavailable):
                await self._write(nothing)

    async def _renew_heartbeats(self) -> None:
        while True:
            await trio.sleep(_RENEW_EVERY)
            self._heartbeats.renew(self._now())

    async def _purge(self) -> None:
        while True:
            await self._collected.wait()
            self._collected = trio.Event()
            await trio.sleep(_PURGE_AFTER)
            try:
                await self._repeat(lambda tx: tx.purge_collected())
                more = await self._write(lambda tx: tx.age_collected())
            except StateUnavailable:
                more = True
            if more:
                self._collected.set()

    async def _sweep(self) -> None:
        while True:
            with suppress(StateUnavailable):
                await self._repeat(lambda tx: tx.sweep())
                await self._repeat(lambda tx: tx.give_back_space())
                self.sweeps += 1
            await trio.sleep(_SWEEP_EVERY)

    async def _repeat(self, portion: Step[bool]) -> None:
        """Perform a step until there is no more for it to do; others may write in between."""
        while await self._write(portion):
            pass

    async def _listen(self) -> None:
        look_at = trio.current_time() + _LOOK_AFTER
        while True:
            with trio.move_on_at(look_at) as noticed:
                await self._engine.next_notice()
            # Others commit all the time: whether they live is not worth a look at each.
            if noticed.cancelled_caught:
                look_at = trio.current_time() + _LOOK_AFTER
            with suppress(StateUnavailable):
                await self._write(evict_ended if noticed.cancelled_caught else nothing)


def nothing(_: Transaction) -> None:
    """Only bring what else belongs to a commit: heartbeats out, news in."""


def evict_ended(tx: Transaction) -> None:
    """Look for processes that have ended; and bring news in, as every commit does."""
    tx.evict_ended()
