"""What a store of messages does by itself, until cancelled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TypeVar

import attrs
import trio

from superlink_trio.state.durable import DurableState
from superlink_trio.state.durable.heartbeats import WRITE_BEHIND
from superlink_trio.state.interface import FORGET, HEARTBEAT_TIMEOUT, StateUnavailable
from superlink_trio.state.messages import rules
from superlink_trio.state.messages.durable.engine import MessageTransaction
from superlink_trio.state.messages.durable.heartbeats import Heartbeat
from superlink_trio.state.messages.durable.known import Known, LiveRun
from superlink_trio.wire.messages import RunStatus

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

_SWEEP_EVERY = 5.0
_TRY_AGAIN_AFTER = 1.0

# How old that may be which is shown of nodes that other processes hear of, in seconds.
_SEE_HEARTBEATS_EVERY = HEARTBEAT_TIMEOUT / 3


class Upkeep:
    """Writes heartbeats, deletes what came to nothing, looks up what other processes change."""

    def __init__(self, state: DurableState, known: Known) -> None:
        self._state = state
        self._known = known
        self._dropped = trio.Event()

    def start(self, nursery: trio.Nursery) -> None:
        """Begin everything in a nursery; it goes on until cancelled."""
        self.dropped()
        nursery.start_soon(self._write_heartbeats)
        nursery.start_soon(self._sweep)
        nursery.start_soon(self._purge)
        nursery.start_soon(self._forget_nodes)
        if self._state.shares_messages:
            nursery.start_soon(self._look_up)
            nursery.start_soon(self._see_heartbeats)

    def dropped(self) -> None:
        """Note that there are messages to delete."""
        self._dropped.set()

    def released(self) -> None:
        """Note that a message has let go of objects, of which others may have to be asked first."""
        if self._state.shares_messages:
            self._dropped.set()

    async def _write(self, step: Callable[[MessageTransaction], Result]) -> Result:
        """Perform a step that a crash of the machine may undo."""
        return await self._state.write(lambda tx: step(tx.messages), durable=False)

    async def _repeat(self, portion: Callable[[MessageTransaction], bool]) -> None:
        """Perform a step until there is no more for it to do; others may write in between."""
        while await self._write(portion):
            pass

    async def _write_heartbeats(self) -> None:
        heartbeats = self._known.heartbeats
        while True:
            await heartbeats.wait()
            await trio.sleep(WRITE_BEHIND)
            with suppress(StateUnavailable), heartbeats.written() as (nodes, runs):
                await self._write(_Heard(nodes, runs))

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(_SWEEP_EVERY)
            with suppress(StateUnavailable):
                await self._repeat(lambda tx: tx.sweep())
                self.released()
                for run in self._known.silent():
                    await self._give_up(run)

    async def _give_up(self, run: LiveRun) -> None:
        starting = run.record.status is RunStatus.STARTING
        token, alive_at = run.token, run.alive_at
        heard_at = await self._state.write(lambda tx: tx.messages.give_up_run(token, alive_at))
        if heard_at is not None:
            run.alive_at = heard_at
        elif starting:
            _log.warning(rules.UNUSED, run.record.run_id)
        else:
            self.dropped()

    async def _purge(self) -> None:
        while True:
            await self._dropped.wait()
            self._dropped = trio.Event()
            try:
                await self._repeat(lambda tx: tx.purge())
            except StateUnavailable:
                await trio.sleep(_TRY_AGAIN_AFTER)
                self._dropped.set()

    async def _forget_nodes(self) -> None:
        while True:
            await trio.sleep(FORGET / 24)
            with suppress(StateUnavailable):
                await self._forget_nodes_once(tuple(self._known.heartbeats.nodes()))

    async def _forget_nodes_once(self, heard: Collection[int]) -> None:
        await self._write(lambda tx: tx.forget_nodes(heard))

    async def _look_up(self) -> None:
        """Look up what other processes have changed."""
        while True:
            await self._known.unseen.some.wait()
            unseen = self._known.take_unseen()
            try:
                await self._write(unseen.look)
            except StateUnavailable:
                self._known.unseen.add(unseen.nodes, unseen.runs, everything=unseen.everything)
                await trio.sleep(_TRY_AGAIN_AFTER)

    async def _see_heartbeats(self) -> None:
        """Show nodes as online that other processes have heard of."""
        while True:
            await trio.sleep(_SEE_HEARTBEATS_EVERY)
            if self._state.has_others:
                with suppress(StateUnavailable):
                    online = await self._state.read(lambda db: db.messages.online_nodes())
                    self._known.see_online(online)


@attrs.frozen
class _Heard:
    """A step: writes heartbeats."""

    nodes: Mapping[int, Heartbeat]
    runs: Mapping[bytes, float]

    def __call__(self, tx: MessageTransaction) -> None:
        tx.write_heartbeats(self.nodes)
        for token, at in sorted(self.runs.items()):
            tx.keep_run(token, at)
