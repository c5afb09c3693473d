"""`DurableMessages`: steps for what is to last, and what is known for everything else.

It stands on a `DurableState`, whose file and writer it shares: what both do goes into the same
commits.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

import trio

from superlink_trio.state.durable import DurableState
from superlink_trio.state.durable.engine import Busy, Queries
from superlink_trio.state.interface import CannotOpen, StateUnavailable
from superlink_trio.state.messages import rules
from superlink_trio.state.messages.durable.engine import Sent
from superlink_trio.state.messages.durable.heartbeats import Heartbeat
from superlink_trio.state.messages.durable.known import Known, digest_of
from superlink_trio.state.messages.durable.lookups import Lookups
from superlink_trio.state.messages.durable.upkeep import Upkeep
from superlink_trio.state.messages.ids import draw_new_id, new_run_record
from superlink_trio.state.messages.interface import (
    Claim,
    Logged,
    MessagesCensus,
    MessageState,
    NewRun,
    NotFound,
    Pushed,
    Wrong,
)
from superlink_trio.state.messages.rules import Asked
from superlink_trio.state.rules import Survey
from superlink_trio.wire.bulk import in_thread_if_large
from superlink_trio.wire.messages import Envelope, NodeRecord, Outcome, RunRecord
from superlink_trio.wire.objects import object_id_of
from superlink_trio.wire.runs import Fab

# Seconds after which something is looked at again that another process is just writing, and for
# which it is.
_LOOK_AGAIN_AFTER = 0.01
_PATIENCE = 10.0

# What databases count up to.
_MOST = 2**63 - 1


class DurableMessages(MessageState):
    """Nodes, runs and messages in a database, which other processes may serve as well."""

    outlives_process = True

    def __init__(self, state: DurableState) -> None:
        super().__init__(clock=state.now)
        self._state = state
        self._known = Known(state.now)
        self._nodes = self._known.nodes
        self._heartbeats = self._known.heartbeats
        self._found = Lookups(state, self._known)
        self._upkeep = Upkeep(state, self._known)
        state.subscribe(self._known.committed)

    @property
    def busy(self) -> bool:
        """Whether a worker thread is at work on the database."""
        return self._state.busy

    async def serve(
        self,
        *,
        stopping: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Write heartbeats and look after what came to nothing until `stopping`.

        The state has to be open. Raises CannotOpen, also where another process serves these nodes
        and none may beside it.
        """
        try:
            self._known.resume(await self._state.write(lambda tx: tx.messages.resume()))
        except StateUnavailable as error:
            raise CannotOpen(str(error)) from error
        async with trio.open_nursery() as nursery:
            self._upkeep.start(nursery)
            task_status.started()
            await stopping.wait()
            nursery.cancel_scope.cancel()

    async def serve_again(self) -> None:
        if self._state.shares_messages:
            await self._state.write(lambda tx: tx.messages.serve(), durable=False)

    async def stop_serving(self) -> bool:
        if not self._state.shares_messages:
            return False
        # Two steps: in one, two processes that stop at the same time would see each other.
        await self._state.write(lambda tx: tx.messages.stop_serving(), durable=False)
        return await self._state.write(lambda tx: tx.messages.is_served_elsewhere(), durable=False)

    def census(self) -> MessagesCensus:
        runs = (run.record for run in self._known.runs.values())
        return self._nodes.census(runs, self.now())

    # Nodes

    async def register_node(
        self, public_key: bytes, *, itself: bool = False, name: str = "", location: str = ""
    ) -> int:
        node = NodeRecord(
            node_id=draw_new_id(self._nodes),
            public_key=public_key,
            registered_at=self.now(),
            registered_itself=itself,
            name=name,
            location=location,
        )
        heard = tuple(self._heartbeats.nodes())
        await self._state.write(lambda tx: tx.messages.register_node(node, heard))
        return node.node_id

    async def activate_node(self, public_key: bytes, heartbeat_interval: float) -> int:
        node = await self._found.node_of_key(public_key)
        if node is None:
            raise NotFound(rules.NO_NODE)
        active = rules.activated(node, heartbeat_interval, self.now())
        if not await self._state.write(lambda tx: tx.messages.activate_node(active)):
            raise NotFound(rules.NO_NODE)
        return node.node_id

    async def admit_node(self, node_id: int, public_key: bytes, *, readmit: bool) -> bool:
        known = self._nodes.of_key(public_key)
        if known is not None:
            return known.node_id == node_id
        may_be_known = readmit or self._state.shares_messages
        if node_id in self._nodes or not may_be_known:
            return False
        node = NodeRecord(
            node_id=node_id,
            public_key=public_key,
            registered_at=self.now(),
            registered_itself=True,
        )
        heard = tuple(self._heartbeats.nodes())
        return await self._state.write(
            lambda tx: tx.messages.admit_node(node, heard, readmit=readmit)
        )

    async def heartbeat(self, node_id: int, heartbeat_interval: float | None = None) -> bool:
        node = await self._found.node(node_id)
        if node is None:
            return False
        now = self.now()
        node = rules.heard_of(node, heartbeat_interval, now)
        self._nodes.put(node)
        self._heartbeats.note_node(node_id, Heartbeat(now, node.heartbeat_interval))
        return True

    async def deactivate_node(self, node_id: int) -> bool:
        node = await self._found.node(node_id)
        if node is None:
            return False
        left = rules.deactivated(node, self.now())
        return await self._state.write(lambda tx: tx.messages.update_node(left))

    async def unregister_node(self, node_id: int) -> bool:
        return await self._state.write(lambda tx: tx.messages.unregister_node(node_id))

    def node(self, node_id: int) -> NodeRecord | None:
        return self._nodes.get(node_id)

    async def nodes(self) -> Sequence[NodeRecord]:
        return self._nodes.all()

    async def online_nodes(self) -> Sequence[int]:
        heard = self._heartbeats.nodes()
        online = await self._state.read(lambda db: db.messages.online_nodes())
        others = (one for one in heard if one not in online and one in self._nodes)
        return [*online, *others]

    # Runs

    def live_runs(self) -> Mapping[int, RunRecord]:
        return {run_id: run.record for run_id, run in self._known.runs.items()}

    async def create_run(self, new: NewRun) -> RunRecord:
        run = new_run_record(new, self.now(), taken=self._known.runs)
        await self._state.write(lambda tx: tx.messages.create_run(run, new.fab))
        return run

    async def run(self, run_id: int) -> RunRecord | None:
        live = self._known.runs.get(run_id)
        if live is not None:
            return live.record
        return await self._state.read(lambda db: db.messages.read_run(run_id))

    async def runs(self, limit: int, skip: int = 0) -> Sequence[RunRecord]:
        limit, skip = min(limit, _MOST), min(skip, _MOST)
        return await self._state.read(lambda db: db.messages.newest_runs(limit, skip))

    async def fab(self, fab_hash: str) -> Fab | None:
        return await self._state.get_fab(fab_hash)

    async def claim_run(self) -> Claim | None:
        if not self._known.has_pending:
            return None
        token = secrets.token_hex(32)
        run = await self._state.write(lambda tx: tx.messages.claim_run(digest_of(token)))
        if run is None:
            # Another process is faster, or will put it back.
            runs = self._known.pending_runs()
            await self._state.write(lambda tx: tx.messages.look_at_runs(runs), durable=False)
            await trio.sleep(_LOOK_AGAIN_AFTER)
            return None
        return Claim(run, token)

    async def unclaim_run(self, token: str) -> bool:
        return await self._state.write(lambda tx: tx.messages.unclaim_run(digest_of(token)))

    async def claimed_runs(self) -> Sequence[RunRecord]:
        return [run.record for run in self._known.claimed()]

    async def await_pending_run(self) -> None:
        while not self._known.has_pending:
            await self._known.pending.wait()

    async def begin_run(self, token: str) -> RunRecord:
        if await self._found.run_of_token(token) is None:
            raise NotFound(rules.NO_TOKEN)
        return await self._state.write(lambda tx: tx.messages.begin_run(digest_of(token)))

    async def run_of_token(self, token: str) -> RunRecord | None:
        run = await self._found.run_of_token(token)
        return None if run is None else run.record

    async def task_heartbeat(self, token: str) -> bool:
        run = await self._found.run_of_token(token)
        if run is not None:
            run.alive_at = self.now()
            if self._state.shares_messages:
                self._heartbeats.note_run(run.token, run.alive_at)
        return run is not None

    async def finish_run(self, run_id: int, outcome: Outcome, details: str = "") -> bool:
        finished = await self._state.write(
            lambda tx: tx.messages.finish_run(run_id, outcome, details)
        )
        self._upkeep.dropped()
        return finished

    async def await_finished(self, run_id: int) -> None:
        await self._found.look_at_run(run_id)
        while (run := self._known.runs.get(run_id)) is not None:
            await run.news.wait()

    async def log(self, run_id: int, text: str) -> None:
        await self._state.write(lambda tx: tx.messages.log(run_id, text), durable=False)

    async def logs(self, run_id: int, after: float) -> Logged:
        return await self._state.read(lambda db: db.messages.logs(run_id, after))

    async def await_logs(self, run_id: int, after: float) -> None:
        await self._found.look_at_run(run_id)
        while (run := self._known.runs.get(run_id)) is not None and run.logged_at <= after:
            await run.news.wait()

    # Messages and their objects

    async def push(self, run_id: int, source: int, envelopes: Sequence[Envelope]) -> Pushed:
        size = sum(envelope.tree.ByteSize() for envelope in envelopes)
        sent = await in_thread_if_large(size, lambda: [Sent.of(one) for one in envelopes])
        return await self._state.write(lambda tx: tx.messages.push(run_id, source, sent))

    async def put_object(self, run_id: int, source: int, object_id: str, content: bytes) -> None:
        actual = await in_thread_if_large(len(content), object_id_of, content)
        if actual != object_id:
            raise Wrong(f"object {object_id[:80]!r} has the SHA-256 {actual}")
        await self._put_object(run_id, source, object_id, content)
        if self._state.has_others and self._state.shares_messages:
            # Where they have just brought the rest of its message, neither saw the other's.
            await self._state.write(lambda tx: tx.messages.arrive(object_id))

    async def _put_object(self, run_id: int, source: int, object_id: str, content: bytes) -> None:
        gives_up_at = trio.current_time() + _PATIENCE
        while trio.current_time() < gives_up_at:
            with suppress(Busy):
                return await self._state.write(
                    lambda tx: tx.messages.put_object(run_id, source, object_id, content)
                )
            await trio.sleep(_LOOK_AGAIN_AFTER)
        raise StateUnavailable("Another process is storing the same object.")

    async def get_object(self, run_id: int, reader: int, object_id: str) -> bytes | None:
        return await self._state.read(lambda db: db.messages.get_object(run_id, reader, object_id))

    async def take(self, node_id: int) -> Envelope | None:
        return await self._state.write(lambda tx: tx.messages.take(node_id), durable=False)

    async def await_instruction(self, node_id: int) -> bool:
        self._known.pulls.replace(node_id)
        if await self._found.node(node_id) is not None:
            await self._end_pulls_elsewhere(node_id)
        while node_id in self._nodes:
            with self._known.pulls.at(node_id) as place:
                found = await self._state.read(lambda db: db.messages.has_instruction(node_id))
                if not found:
                    await place.woken.wait()
            if place.replaced:
                return False
            if found or node_id in self._nodes:
                return True
        return False

    async def _end_pulls_elsewhere(self, node_id: int) -> None:
        if not self._state.shares_messages:
            return
        if self._state.has_others and self._known.pulls_elsewhere(node_id):
            await self._state.write(lambda tx: tx.messages.pulled(node_id), durable=False)
        self._known.pulls_here(node_id)

    async def take_replies(self, run_id: int, message_ids: Collection[str]) -> Sequence[Envelope]:
        asked, online_until = await self._asked(run_id, message_ids)
        settled, codes = [], {}
        for message_id in dict.fromkeys(message_ids):
            one = asked.get(message_id)
            until = 0.0 if one is None else online_until(one.reader)
            code = rules.code_of(one, until, self.now())
            if code is not None:
                codes[message_id] = code
            if code is not None or (one is not None and one.replied):
                settled.append(message_id)
        if not settled:
            return []
        return await self._state.write(
            lambda tx: tx.messages.take_replies(run_id, settled[: rules.MOST_REPLIES], codes),
            durable=False,
        )

    async def _asked(
        self, run_id: int, message_ids: Collection[str]
    ) -> tuple[Mapping[str, Asked], Callable[[int], float]]:
        """Look up instructions, and until when their nodes are online."""
        heard = self._heartbeats.nodes()

        def query(db: Queries) -> tuple[Mapping[str, Asked], Mapping[int, float]]:
            asked = db.messages.asked(run_id, message_ids)
            readers = {one.reader for one in asked.values() if not one.replied}
            return asked, db.messages.online_until(readers)

        asked, written = await self._state.read(query)

        def online_until(node_id: int) -> float:
            if node_id not in written:
                return 0.0
            heartbeat = heard.get(node_id)
            until = 0.0 if heartbeat is None else heartbeat.until
            return max(written[node_id], until)

        return asked, online_until

    async def await_replies(
        self,
        run_id: int,
        message_ids: Collection[str],
        progress: Callable[[int], object] | None = None,
    ) -> None:
        async def look(missing: Collection[str]) -> Survey:
            asked, online_until = await self._asked(run_id, missing)
            return rules.survey(missing, asked, online_until, self.now())

        await self._known.replies.wait(message_ids, sys.maxsize, progress, look)
        if progress is not None:
            progress(0)

    async def confirm(self, run_id: int, reader: int, message_id: str) -> None:
        await self._state.write(
            lambda tx: tx.messages.confirm(run_id, reader, message_id), durable=False
        )
        self._upkeep.released()
