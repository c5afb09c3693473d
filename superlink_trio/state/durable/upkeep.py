"""What a durable store does by itself, now and then."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from superlink_trio.state.durable.engine import Engine, Step, Transaction
from superlink_trio.state.durable.heartbeats import WRITE_BEHIND, Heartbeats
from superlink_trio.state.durable.writer import Writer
from superlink_trio.state.interface import HEARTBEAT_TIMEOUT, Clock, StateUnavailable

_SWEEP_EVERY = 60.0
_RENEW_EVERY = HEARTBEAT_TIMEOUT / 3

# What was sent has arrived by then, or never will.
_PURGE_AFTER = 1.0

# Another process notifies this one when it changes something. Where it cannot, time has to: it was
# killed just before, or it cannot reach us.
_LOOK_AFTER = 2.0


class Upkeep:
    """Keeps the database small, its heartbeats fresh, and this process up to date."""

    def __init__(
        self,
        engine: Engine,
        writer: Writer[Transaction],
        heartbeats: Heartbeats,
        clock: Clock,
        most_nodes: Callable[[], int],
    ) -> None:
        """`most_nodes`: gives how many deleted nodes are kept."""
        self._engine = engine
        self._writer = writer
        self._heartbeats = heartbeats
        self._now = clock
        self._most_nodes = most_nodes
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
                await self._writer.do(nothing, durable=False)

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
                more = await self._writer.do(lambda tx: tx.age_collected(), durable=False)
            except StateUnavailable:
                more = True
            if more:
                self._collected.set()

    async def _sweep(self) -> None:
        while True:
            with suppress(StateUnavailable):
                await self._sweep_all(self._now(), self._most_nodes())
                self.sweeps += 1
            await trio.sleep(_SWEEP_EVERY)

    async def _sweep_all(self, now: float, most_nodes: int) -> None:
        await self._repeat(lambda tx: tx.sweep(now, most_nodes))
        await self._repeat(lambda tx: tx.give_back_space())

    async def _repeat(self, portion: Step[bool]) -> None:
        """Perform a step until there is no more for it to do; others may write in between."""
        while await self._writer.do(portion, durable=False):
            pass

    async def _listen(self) -> None:
        while True:
            with trio.move_on_after(_LOOK_AFTER):
                await self._engine.next_notice()
            with suppress(StateUnavailable):
                await self._writer.do(evict_ended, durable=False)


def nothing(_: Transaction) -> None:
    """Only bring what else belongs to a commit: heartbeats out, news in."""


def evict_ended(tx: Transaction) -> None:
    """Look for processes that have ended; and bring news in, as every commit does."""
    tx.evict_ended()
