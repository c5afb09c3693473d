"""Messages on their way between runs and nodes, in memory."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Sequence

import attrs
import trio

from superlink_trio.state.interface import Clock
from superlink_trio.state.limits import StateLimits
from superlink_trio.state.messages import rules
from superlink_trio.state.messages.bell import Bell
from superlink_trio.state.messages.interface import SERVER
from superlink_trio.state.messages.objects import Objects
from superlink_trio.state.messages.rules import Asked, Fate, Phase
from superlink_trio.state.waiting import Parked
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import Envelope
from superlink_trio.wire.objects import root_of


@attrs.define(eq=False)
class Entry:
    """One message. Times are Unix seconds."""

    envelope: Envelope
    run_id: int
    source: int
    reader: int
    object_ids: Sequence[str]
    """Of its tree, each once; empty once they were released."""
    expires_at: float
    heard_at: float
    """When something of it came last, while it is arriving."""
    missing: set[str] = attrs.field(factory=set)
    phase: Phase = Phase.ARRIVING
    asked: Entry | None = None
    """A reply's instruction."""
    reply: Entry | None = None
    """An instruction's reply, once all of it is here."""

    @property
    def message_id(self) -> str:
        """Its id."""
        return self.envelope.message_id

    @property
    def as_asked(self) -> Asked:
        """What of an instruction decides about its reply."""
        return Asked(self.run_id, self.reader, self.expires_at, self.reply is not None)


class Messages:
    """Messages by their ids, queues by node, and the objects of all."""

    def __init__(
        self, clock: Clock, limits: StateLimits, online_until: Callable[[int], float]
    ) -> None:
        self._now = clock
        self._limits = limits
        self._online_until = online_until
        self.objects = Objects()
        self.parked = Parked()
        self._entries: dict[str, Entry] = {}
        self._runs: dict[int, dict[str, Entry]] = {}
        self._queues: dict[int, OrderedDict[str, Entry]] = {}
        self._handed_out: dict[int, Entry] = {}
        # Objects that may be read, by run and reader, and of how many messages they are part.
        self._readable: dict[tuple[int, int], Counter[str]] = {}
        # Objects that are missing, and in which messages.
        self._wanting: dict[str, set[Entry]] = {}
        self._replied: dict[int, Bell] = {}

    def push(self, run_id: int, source: int, envelope: Envelope) -> tuple[str, Sequence[str]]:
        """Take one message; give its id, "" if it is not taken, and the objects it misses."""
        known = self._entries.get(envelope.message_id)
        if known is not None:
            # Its sender has not had the answer, and sends it again.
            mine = (known.run_id, known.source) == (run_id, source)
            return (known.message_id, sorted(known.missing)) if mine else ("", ())
        meta = envelope.message.metadata
        asked = None
        if source != SERVER:
            asked = self._entries.get(meta.reply_to_message_id)
            if asked is None or not rules.takes_reply(asked.as_asked, run_id, source):
                return "", ()
        object_ids = [*rules.parts_of(envelope), envelope.message_id]
        return self._add(run_id, source, envelope, object_ids, asked)

    def _add(
        self,
        run_id: int,
        source: int,
        envelope: Envelope,
        object_ids: Sequence[str],
        asked: Entry | None,
    ) -> tuple[str, Sequence[str]]:
        meta, now = envelope.message.metadata, self._now()
        entry = Entry(
            envelope=envelope,
            run_id=run_id,
            source=source,
            reader=meta.dst_node_id,
            object_ids=object_ids,
            expires_at=rules.expires_at(envelope.message, now),
            heard_at=now,
            asked=asked,
        )
        entry.missing = set(self.objects.refer(object_ids))
        for object_id in entry.missing:
            self._wanting.setdefault(object_id, set()).add(entry)
        self._entries[entry.message_id] = entry
        self._runs.setdefault(run_id, {})[entry.message_id] = entry
        if not entry.missing:
            self._arrived(entry)
        return entry.message_id, sorted(entry.missing)

    def put_object(self, run_id: int, source: int, object_id: str, content: bytes) -> None:
        """See `MessageState.put_object`."""
        wanting = [
            entry
            for entry in self._wanting.get(object_id, ())
            if (entry.run_id, entry.source) == (run_id, source)
        ]
        if not wanting:
            return
        children = rules.children_named(object_id, content)
        if not all(children.issubset(entry.object_ids) for entry in wanting):
            raise rules.foreign_children(object_id)
        check = self._limits.check_asked if source == SERVER else self._limits.check_answer
        check(self.objects.size, len(content))
        self.objects.put(object_id, content)
        now = self._now()
        for entry in self._wanting.pop(object_id):
            entry.missing.discard(object_id)
            entry.heard_at = now
            if not entry.missing:
                self._arrived(entry)

    def _arrived(self, entry: Entry) -> None:
        entry.phase = Phase.QUEUED
        if entry.asked is None:
            self._enqueue(entry)
        elif entry.asked.reply is None:
            entry.asked.reply = entry
            self._bell(entry.run_id).ring()
        else:
            self._delete(entry)

    def _enqueue(self, entry: Entry) -> None:
        self._queues.setdefault(entry.reader, OrderedDict())[entry.message_id] = entry
        self.parked.wake_one(entry.reader)

    def has_instruction(self, node_id: int) -> bool:
        """Say whether there is something to take for a node."""
        return node_id in self._handed_out or bool(self._queues.get(node_id))

    def take(self, node_id: int) -> Envelope | None:
        """See `MessageState.take`."""
        entry = self._handed_out.get(node_id)
        if entry is None:
            queue = self._queues.get(node_id)
            if not queue:
                return None
            _, entry = queue.popitem(last=False)
            if not queue:
                del self._queues[node_id]
            self._hand_out(entry)
            self._handed_out[node_id] = entry
        return entry.envelope

    def _hand_out(self, entry: Entry) -> None:
        entry.phase = Phase.HANDED_OUT
        self._readable.setdefault((entry.run_id, entry.reader), Counter()).update(entry.object_ids)

    def get_object(self, run_id: int, reader: int, object_id: str) -> bytes | None:
        """See `MessageState.get_object`."""
        readable = self._readable.get((run_id, reader))
        if readable is None or not readable[object_id]:
            return None
        return self.objects.get(object_id)

    def confirm(self, run_id: int, reader: int, message_id: str) -> None:
        """See `MessageState.confirm`."""
        entry = self._entries.get(message_id)
        if entry is None or (entry.run_id, entry.reader) != (run_id, reader):
            return
        if entry.phase is not Phase.HANDED_OUT:
            return
        if entry.asked is None:
            self._release(entry)
            entry.phase = Phase.DELIVERED
        else:
            self._delete(entry.asked)
            self._delete(entry)

    def take_replies(self, run_id: int, message_ids: Collection[str]) -> Sequence[Envelope]:
        """See `MessageState.take_replies`."""
        replies = []
        for message_id in dict.fromkeys(message_ids):
            asked = self._runs.get(run_id, {}).get(message_id)
            if asked is None or asked.reply is None:
                code = self._code(asked)
                if code is None:
                    continue
                self._stand_in(run_id, message_id, asked, code)
                asked = self._runs[run_id][message_id]
            reply = asked.reply
            assert reply is not None, "what is settled has a reply"
            if reply.phase is Phase.QUEUED:
                self._hand_out(reply)
            replies.append(reply.envelope)
            if len(replies) == rules.MOST_REPLIES:
                break
        return replies

    def _code(self, asked: Entry | None) -> int | None:
        if asked is None:
            return rules.code_of(None, 0.0, self._now())
        return rules.code_of(asked.as_asked, self._online_until(asked.reader), self._now())

    def _stand_in(self, run_id: int, message_id: str, asked: Entry | None, code: int) -> None:
        if asked is None:
            unknown = rules.unknown_instruction(run_id, message_id)
            never = math.inf
            asked = Entry(Envelope(unknown, pb.ObjectTree()), run_id, SERVER, 0, (), never, never)
            asked.phase = Phase.DELIVERED
            self._entries[message_id] = self._runs.setdefault(run_id, {})[message_id] = asked
        envelope = rules.stand_in(asked.envelope.message, code, self._now())
        root = envelope.message_id
        reply = Entry(envelope, run_id, asked.reader, SERVER, [root], 0.0, 0.0, asked=asked)
        reply.phase = Phase.QUEUED
        self.objects.refer([root])
        self.objects.put(root, root_of(envelope.message))
        self._entries[root] = self._runs[run_id][root] = reply
        asked.reply = reply

    async def await_replies(
        self,
        run_id: int,
        message_ids: Collection[str],
        progress: Callable[[int], object] | None,
    ) -> None:
        """See `MessageState.await_replies`."""
        missing: Collection[str] = set(message_ids)
        while True:
            entries = self._runs.get(run_id, {})
            asked = {one: entries[one].as_asked for one in missing if one in entries}
            survey = rules.survey(missing, asked, self._online_until, self._now())
            missing = set(missing) - survey.settled.keys()
            if progress is not None:
                progress(len(missing))
            if not missing:
                return
            with trio.move_on_after(max(0.001, survey.changes_at - self._now())):
                await self._bell(run_id).wait()

    def node_changed(self, node_id: int) -> None:
        """Let everybody look again who may wait for a node that is online no more."""
        for run_id in {entry.run_id for entry in self._entries.values() if entry.reader == node_id}:
            self._bell(run_id).ring()

    def node_started(self, node_id: int) -> None:
        """Expect no reply to what the node had confirmed: who starts anew knows nothing of it."""
        for entry in self._entries.values():
            if entry.reader == node_id and entry.phase is Phase.DELIVERED and not entry.reply:
                self._lose(entry)

    def _lose(self, asked: Entry) -> None:
        asked.expires_at = min(asked.expires_at, self._now())
        self._bell(asked.run_id).ring()

    def forget_run(self, run_id: int) -> None:
        """Delete all messages of a run."""
        for entry in tuple(self._runs.get(run_id, {}).values()):
            self._delete(entry)
        self._runs.pop(run_id, None)
        self._bell(run_id).ring()
        del self._replied[run_id]

    def sweep(self) -> None:
        """Delete what came to nothing: pushes that stopped half way, messages out of time."""
        now = self._now()
        for entry in tuple(self._entries.values()):
            fate = rules.fate(
                entry.phase,
                is_reply=entry.asked is not None,
                replied=entry.reply is not None,
                expires_at=entry.expires_at,
                heard_at=entry.heard_at,
                now=now,
            )
            if fate is Fate.DELETE:
                self._delete(entry)
                if entry.asked is not None:
                    self._lose(entry.asked)
            elif fate is Fate.RELEASE:
                self._release(entry)
                entry.phase = Phase.DELIVERED

    def _release(self, entry: Entry) -> None:
        """Let go of an entry's objects, and of its place in queues."""
        for object_id in entry.missing:
            self._wanting[object_id].discard(entry)
            if not self._wanting[object_id]:
                del self._wanting[object_id]
        entry.missing.clear()
        if entry.phase is Phase.HANDED_OUT:
            readable = self._readable[entry.run_id, entry.reader]
            for object_id in entry.object_ids:
                readable[object_id] -= 1
                if not readable[object_id]:
                    del readable[object_id]
            if not readable:
                del self._readable[entry.run_id, entry.reader]
        if self._handed_out.get(entry.reader) is entry:
            del self._handed_out[entry.reader]
        queue = self._queues.get(entry.reader, OrderedDict())
        if queue.pop(entry.message_id, None) is not None and not queue:
            del self._queues[entry.reader]
        self.objects.release(entry.object_ids)
        entry.object_ids = ()

    def _delete(self, entry: Entry) -> None:
        if self._entries.pop(entry.message_id, None) is None:
            return
        self._release(entry)
        self._runs.get(entry.run_id, {}).pop(entry.message_id, None)

    def _bell(self, run_id: int) -> Bell:
        return self._replied.setdefault(run_id, Bell())
