"""`MemoryMessages`: every method takes its step between two checkpoints, which makes it atomic."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import trio

from superlink_trio.state.interface import Clock
from superlink_trio.state.limits import NO_LIMITS, StateLimits
from superlink_trio.state.messages import rules
from superlink_trio.state.messages.interface import (
    SERVER,
    Claim,
    Logged,
    MessagesCensus,
    MessageState,
    NewRun,
    Pushed,
    Wrong,
)
from superlink_trio.state.messages.memory.messages import Messages
from superlink_trio.state.messages.memory.nodes import Nodes
from superlink_trio.state.messages.memory.runs import Runs
from superlink_trio.wire.bulk import in_thread_if_large
from superlink_trio.wire.messages import Envelope, NodeRecord, Outcome, RunRecord, RunStatus
from superlink_trio.wire.objects import object_id_of
from superlink_trio.wire.runs import Fab

_log = logging.getLogger(__name__)

_SWEEP = 5.0
"""Seconds between two looks for what came to nothing."""


class MemoryMessages(MessageState):
    """Nodes, runs and messages in memory."""

    outlives_process = False

    def __init__(self, *, clock: Clock = time.time, limits: StateLimits = NO_LIMITS) -> None:
        super().__init__(clock=clock)
        self._nodes = Nodes(clock, limits, self._node_gone)
        self._runs = Runs(clock)
        self._messages = Messages(clock, limits, self._nodes.online_until)

    async def serve(
        self,
        *,
        stopping: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Look after what came to nothing until `stopping`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._nodes.sweep)
            nursery.start_soon(self._sweep)
            task_status.started()
            await stopping.wait()
            nursery.cancel_scope.cancel()

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(_SWEEP)
            self._messages.sweep()
            for claim in self._runs.silent():
                if self._runs.unclaim(claim.token):
                    _log.warning(rules.UNUSED, claim.run.run_id)
                else:
                    await self.finish_run(claim.run.run_id, Outcome.FAILED, rules.SILENT)

    async def serve_again(self) -> None:
        pass

    async def stop_serving(self) -> bool:
        return False

    def census(self) -> MessagesCensus:
        return self._nodes.census(self._runs.all(), self.now())

    # Nodes

    async def register_node(
        self, public_key: bytes, *, itself: bool = False, name: str = "", location: str = ""
    ) -> int:
        return self._nodes.register(public_key, itself=itself, name=name, location=location)

    def _node_gone(self, node_id: int) -> None:
        self._messages.parked.wake_all(node_id)
        self._messages.node_changed(node_id)

    async def activate_node(self, public_key: bytes, heartbeat_interval: float) -> int:
        node_id = self._nodes.activate(public_key, heartbeat_interval)
        self._messages.node_started(node_id)
        return node_id

    async def admit_node(self, node_id: int, public_key: bytes, *, readmit: bool) -> bool:
        return self._nodes.admit(node_id, public_key, readmit=readmit)

    async def heartbeat(self, node_id: int, heartbeat_interval: float | None = None) -> bool:
        return self._nodes.heartbeat(node_id, heartbeat_interval)

    async def deactivate_node(self, node_id: int) -> bool:
        known = self._nodes.deactivate(node_id)
        if known:
            self._messages.node_changed(node_id)
        return known

    async def unregister_node(self, node_id: int) -> bool:
        return self._nodes.unregister(node_id)

    def node(self, node_id: int) -> NodeRecord | None:
        return self._nodes.get(node_id)

    async def nodes(self) -> Sequence[NodeRecord]:
        return self._nodes.all()

    async def online_nodes(self) -> Sequence[int]:
        return self._nodes.online(self.now())

    # Runs

    def live_runs(self) -> Mapping[int, RunRecord]:
        return self._runs.live()

    async def create_run(self, new: NewRun) -> RunRecord:
        return self._runs.create(new)

    async def run(self, run_id: int) -> RunRecord | None:
        return self._runs.get(run_id)

    async def runs(self, limit: int, skip: int = 0) -> Sequence[RunRecord]:
        return self._runs.newest(limit, skip)

    async def fab(self, fab_hash: str) -> Fab | None:
        return self._runs.fab(fab_hash)

    async def claim_run(self) -> Claim | None:
        return self._runs.claim()

    async def unclaim_run(self, token: str) -> bool:
        return self._runs.unclaim(token)

    async def claimed_runs(self) -> Sequence[RunRecord]:
        return self._runs.claimed()

    async def await_pending_run(self) -> None:
        while not self._runs.has_pending:
            await self._runs.pending.wait()

    async def begin_run(self, token: str) -> RunRecord:
        return self._runs.begin(token)

    async def run_of_token(self, token: str) -> RunRecord | None:
        return self._runs.of_token(token)

    async def task_heartbeat(self, token: str) -> bool:
        return self._runs.heartbeat(token)

    async def finish_run(self, run_id: int, outcome: Outcome, details: str = "") -> bool:
        if not self._runs.finish(run_id, outcome, details):
            return False
        self._messages.forget_run(run_id)
        return True

    async def await_finished(self, run_id: int) -> None:
        await self._runs.await_finished(run_id)

    async def log(self, run_id: int, text: str) -> None:
        self._runs.log(run_id, text)

    async def logs(self, run_id: int, after: float) -> Logged:
        return self._runs.logs(run_id, after)

    async def await_logs(self, run_id: int, after: float) -> None:
        await self._runs.await_logs(run_id, after)

    # Messages and their objects

    async def push(self, run_id: int, source: int, envelopes: Sequence[Envelope]) -> Pushed:
        ids: list[str] = []
        missing: dict[str, None] = {}
        run = self._runs.get(run_id)
        going_on = run is not None and run.status is not RunStatus.FINISHED
        for envelope in envelopes:
            if not going_on or (source == SERVER and not self._is_for_a_node(envelope)):
                ids.append("")
                continue
            rules.check_metadata(envelope.message, run_id, source)
            message_id, misses = self._messages.push(run_id, source, envelope)
            ids.append(message_id)
            missing.update(dict.fromkeys(misses))
        return Pushed(ids, list(missing), f"{run_id:x}")

    def _is_for_a_node(self, envelope: Envelope) -> bool:
        return envelope.message.metadata.dst_node_id in self._nodes

    async def put_object(self, run_id: int, source: int, object_id: str, content: bytes) -> None:
        actual = await in_thread_if_large(len(content), object_id_of, content)
        if actual != object_id:
            raise Wrong(f"object {object_id[:80]!r} has the SHA-256 {actual}")
        self._messages.put_object(run_id, source, object_id, content)

    async def get_object(self, run_id: int, reader: int, object_id: str) -> bytes | None:
        return self._messages.get_object(run_id, reader, object_id)

    async def take(self, node_id: int) -> Envelope | None:
        return self._messages.take(node_id)

    async def await_instruction(self, node_id: int) -> bool:
        self._messages.parked.replace(node_id)
        while node_id in self._nodes:
            if self._messages.has_instruction(node_id):
                return True
            with self._messages.parked.at(node_id) as place:
                await place.woken.wait()
            if place.replaced:
                return False
        return False

    async def take_replies(self, run_id: int, message_ids: Collection[str]) -> Sequence[Envelope]:
        return self._messages.take_replies(run_id, message_ids)

    async def await_replies(
        self,
        run_id: int,
        message_ids: Collection[str],
        progress: Callable[[int], object] | None = None,
    ) -> None:
        await self._messages.await_replies(run_id, message_ids, progress)

    async def confirm(self, run_id: int, reader: int, message_id: str) -> None:
        self._messages.confirm(run_id, reader, message_id)
