"""Steps about messages on their way between runs and nodes.

Phases stand in SQL as numbers: a partial index is used for nothing else. For CROSS JOIN see
`objects`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from superlink_trio.state.durable.engine import Busy, ChangeKind
from superlink_trio.state.messages import rules
from superlink_trio.state.messages.durable.engine import Sent
from superlink_trio.state.messages.ids import to_signed, to_unsigned
from superlink_trio.state.messages.interface import (
    MESSAGE_UNAVAILABLE,
    SERVER,
    Pushed,
    Wrong,
)
from superlink_trio.state.messages.rules import Asked, Phase
from superlink_trio.state.sql.messages import nodes, objects, runs
from superlink_trio.state.sql.messages.transaction import Reading, Transaction
from superlink_trio.state.sql.transaction import listed
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import Envelope, NodeRecord
from superlink_trio.wire.objects import root_of


class Row(NamedTuple):
    """A message, as far as steps decide about it. Ids are signed."""

    number: int
    message_id: str
    run_id: int
    source: int
    reader: int
    phase: int
    expires_at: float
    asked: int | None
    """The number of a reply's instruction."""
    reply: int | None
    """The number of an instruction's reply, once all of it is here."""
    root: int | None
    tree_id: int | None

    @property
    def run(self) -> int | None:
        """The run that may still do something with it."""
        return None if self.phase == Phase.DROPPED else to_unsigned(self.run_id)

    @property
    def as_asked(self) -> Asked:
        """What of an instruction decides about its reply."""
        replied = self.reply is not None
        return Asked(to_unsigned(self.run_id), to_unsigned(self.reader), self.expires_at, replied)


FIELDS = ", ".join(Row._fields)
"""The columns that `Row` wants."""


def _find(tx: Reading, message_id: str) -> Row | None:
    return _read(tx, "message_id = ?", message_id)


def _read(tx: Reading, which: str, *values: object) -> Row | None:
    row = tx.first(f"SELECT {FIELDS} FROM superlink_message WHERE {which} LIMIT 1", *values)
    return None if row is None else Row._make(row)


def asked(tx: Reading, run_id: int, message_ids: Collection[str]) -> Mapping[str, Asked]:
    """Give those of a run's instructions that are known."""
    rows = tx.execute(
        "SELECT message_id, run_id, reader, expires_at, reply FROM json_each(?)"
        " CROSS JOIN superlink_message ON message_id = value"
        f" WHERE run_id = ? AND phase != {Phase.DROPPED}",
        *(listed(message_ids), to_signed(run_id)),
    )
    return {
        message_id: Asked(to_unsigned(run), to_unsigned(reader), expires_at, reply is not None)
        for message_id, run, reader, expires_at, reply in rows.fetchall()
    }


# Push


def push(tx: Transaction, run_id: int, source: int, sent: Sequence[Sent]) -> Pushed:
    """Take messages of a run, all of them or, where it raises Wrong, none."""
    goes_on = runs.goes_on(tx, run_id)
    ids: list[str] = []
    missing: dict[str, None] = {}
    below: dict[int, Collection[str]] = {}
    for one in sent:
        row = _take_in(tx, run_id, source, one) if goes_on else None
        ids.append("" if row is None else one.message_id)
        if row is None or row.root is None or row.tree_id is None:
            continue
        if row.tree_id not in below:
            below[row.tree_id] = objects.missing_below(tx, row.tree_id)
            parts = () if isinstance(one.parts, Wrong) else one.parts
            missing.update(dict.fromkeys(part for part in parts if part in below[row.tree_id]))
        if objects.is_missing(tx, row.root):
            missing[one.message_id] = None
    return Pushed(ids, list(missing), f"{run_id:x}")


def _take_in(tx: Transaction, run_id: int, source: int, sent: Sent) -> Row | None:
    """Take one message; give its row, None if it is not taken."""
    meta = sent.message.metadata
    if source == SERVER and not nodes.exists(tx, meta.dst_node_id):
        return None
    rules.check_metadata(sent.message, run_id, source)
    known = _find(tx, sent.message_id)
    if known is not None:
        # Its sender has not had the answer, and sends it again.
        return known if (known.run, to_unsigned(known.source)) == (run_id, source) else None
    number = None
    if source != SERVER:
        instruction = _find(tx, meta.reply_to_message_id)
        if instruction is None or not rules.takes_reply(instruction.as_asked, run_id, source):
            return None
        number = instruction.number
    if isinstance(sent.parts, Wrong):
        raise Wrong(str(sent.parts))
    return _insert(tx, run_id, source, sent, number)


def _insert(tx: Transaction, run_id: int, source: int, sent: Sent, asked: int | None) -> Row:
    assert not isinstance(sent.parts, Wrong), "it was looked at before"
    tree_id = objects.refer_to_tree(tx, sent.digest, sent.tree, sent.parts)
    root = objects.refer(tx, [sent.message_id])[sent.message_id]
    row = tx.first(
        "INSERT INTO superlink_message(message_id, run_id, source, reader, phase, expires_at,"
        " heard_at, asked, root, tree_id, content) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        f" RETURNING {FIELDS}",
        *(sent.message_id, to_signed(run_id), to_signed(source)),
        *(to_signed(sent.message.metadata.dst_node_id), Phase.ARRIVING.value),
        *(rules.expires_at(sent.message, tx.now), tx.now, asked, root, tree_id),
        sent.message.SerializeToString(),
    )
    assert row is not None, "an INSERT gives what it added"
    if not objects.is_missing(tx, root):
        _arrive(tx, root)
    return Row._make(row)


def put_object(tx: Transaction, run_id: int, source: int, object_id: str, content: bytes) -> None:
    """Take an object that a message from a source misses.

    Raises Busy where another process takes it, or is about to refer to it: who waited for one
    while others wait for what it has itself might do so for ever.
    """
    found = tx.first(
        "SELECT number, content IS NULL FROM superlink_object WHERE object_id = ?"
        " FOR NO KEY UPDATE SKIP LOCKED",
        object_id,
    )
    if found is None and objects.exists(tx, object_id):
        raise Busy
    number, missing = found or (0, False)
    if not missing:
        _arrive(tx, number)
        return
    trees = objects.trees_that_miss(tx, number, run_id, source)
    if not trees:
        return
    children = rules.children_named(object_id, content)
    if not all(objects.are_all_in(tx, children, tree_id) for tree_id in trees):
        raise rules.foreign_children(object_id)
    check = tx.limits.check_asked if source == SERVER else tx.limits.check_answer
    check(tx.stored_size(), len(content))
    objects.put(tx, number, content)
    _arrive(tx, number)


def arrive(tx: Transaction, object_id: str) -> None:
    """Let go on whatever message is whole, now that other processes see that this object is here.

    Of two that have brought the last two objects of a message neither saw the other's.
    """
    number = tx.value("SELECT number FROM superlink_object WHERE object_id = ?", object_id)
    if number is not None:
        _arrive(tx, number)


def _arrive(tx: Transaction, number: int) -> None:
    """Let go on whatever message is whole now that this object is here."""
    for row in _whole(tx, number):
        if not _enter(tx, row, Phase.QUEUED):
            continue
        if row.asked is None:
            tx.notify(ChangeKind.INSTRUCTION, to_unsigned(row.reader))
        elif not _settle(tx, row.asked, row.number):
            delete(tx, row)


def _whole(tx: Transaction, number: int) -> Sequence[Row]:
    """Give the messages, the oldest first, that are whole and have an object as root or part."""
    arriving = (
        f"SELECT {', '.join(f'message.{name}' for name in Row._fields)}"
        " FROM superlink_message AS message JOIN superlink_tree AS tree USING (tree_id)"
        " JOIN superlink_object AS root ON root.number = message.root"
        f" WHERE message.phase = {Phase.ARRIVING} AND root.content IS NOT NULL"
    )
    rows = tx.execute(f"{arriving} AND message.root = ? AND {tx.WHOLE}", number).fetchall()
    # A model for a thousand nodes is one tree: they are not looked at before it is whole.
    trees = tx.execute(
        "SELECT tree_id FROM superlink_part JOIN superlink_tree AS tree USING (tree_id)"
        f" WHERE object = ? AND {tx.WHOLE}",
        number,
    ).fetchall()
    for (tree_id,) in trees:
        rows += tx.execute(f"{arriving} AND message.tree_id = ?", tree_id).fetchall()
    return sorted({Row._make(row) for row in rows})


def _settle(tx: Transaction, asked: int, reply: int) -> bool:
    """Note the reply to an instruction; say whether it is the first."""
    settled = tx.execute(
        "UPDATE superlink_message SET reply = ? WHERE number = ? AND reply IS NULL"
        " RETURNING message_id",
        *(reply, asked),
    ).fetchall()
    for (message_id,) in settled:
        tx.notify(ChangeKind.REPLY, message_id)
    return bool(settled)


def _enter(tx: Transaction, row: Row, phase: Phase) -> bool:
    """Let a message go on; say whether it is where it was when somebody looked."""
    entered = tx.execute(
        "UPDATE superlink_message SET phase = ? WHERE number = ? AND phase = ?",
        *(phase.value, row.number, row.phase),
    )
    return entered.rowcount > 0


# Pull


def has_instruction(tx: Reading, node_id: int) -> bool:
    """Say whether there is something to take for a node."""
    return _instruction(tx, node_id) is not None


def _instruction(tx: Reading, node_id: int) -> Row | None:
    for phase in (Phase.HANDED_OUT, Phase.QUEUED):
        which = f"reader = ? AND asked IS NULL AND phase = {phase} ORDER BY number"
        row = _read(tx, which, to_signed(node_id))
        if row is not None:
            return row
    return None


def take(tx: Transaction, node_id: int) -> Envelope | None:
    """Give a node its oldest instruction, one that it was given and has not confirmed first."""
    row = _instruction(tx, node_id)
    return None if row is None else _hand_out(tx, row)


def _hand_out(tx: Transaction, row: Row) -> Envelope:
    if row.phase == Phase.QUEUED:
        _enter(tx, row, Phase.HANDED_OUT)
    tree = pb.ObjectTree.FromString(
        tx.value("SELECT content FROM superlink_tree WHERE tree_id = ?", row.tree_id)
    )
    tree.object_id = row.message_id
    return Envelope(_message(tx, row), tree)


def _message(tx: Reading, row: Row) -> pb.Message:
    query = "SELECT content FROM superlink_message WHERE number = ?"
    return pb.Message.FromString(tx.value(query, row.number))


def take_replies(
    tx: Transaction, run_id: int, message_ids: Collection[str], codes: Mapping[str, int]
) -> Sequence[Envelope]:
    """Give replies; `codes`: the errors that stand in where there is none."""
    if not runs.goes_on(tx, run_id):
        return ()
    replies = []
    for message_id in dict.fromkeys(message_ids):
        row = _find(tx, message_id)
        if row is not None and row.run != run_id:
            continue
        if (row is None or row.reply is None) and message_id in codes:
            _stand_in(tx, run_id, message_id, row, codes[message_id])
            row = _find(tx, message_id)
        reply = None if row is None else _read(tx, "number = ?", row.reply)
        if reply is not None:
            replies.append(_hand_out(tx, reply))
    return replies


def _stand_in(tx: Transaction, run_id: int, message_id: str, asked: Row | None, code: int) -> None:
    if (asked is None) is not (code == MESSAGE_UNAVAILABLE):
        return  # it has come or gone since somebody looked
    if asked is None:
        message = rules.unknown_instruction(run_id, message_id)
        number = _remember(tx, message)
    else:
        message, number = _message(tx, asked), asked.number
    envelope = rules.stand_in(message, code, tx.now)
    tree_id = objects.refer_to_tree(tx, hashlib.sha256(b"").digest(), b"", ())
    root = objects.refer(tx, [envelope.message_id])[envelope.message_id]
    objects.put(tx, root, root_of(envelope.message))
    reply = tx.value(
        "INSERT INTO superlink_message(message_id, run_id, source, reader, phase, expires_at,"
        " heard_at, asked, root, tree_id, content) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " RETURNING number",
        *(envelope.message_id, to_signed(run_id)),
        *(SERVER if asked is None else asked.reader, SERVER, Phase.QUEUED.value),
        *(tx.now, tx.now, number, root, tree_id, envelope.message.SerializeToString()),
    )
    if not _settle(tx, number, reply):
        # The node's own has come at this very moment.
        row = _read(tx, "number = ?", reply)
        assert row is not None, "it was added in the same transaction"
        delete(tx, row)


def _remember(tx: Transaction, unknown: pb.Message) -> int:
    """Store an instruction that is not known, for the error that stands in; give its number."""
    number: int = tx.value(
        "INSERT INTO superlink_message(message_id, run_id, source, reader, phase, expires_at,"
        " heard_at, content) VALUES (?, ?, ?, 0, ?, ?, ?, ?) RETURNING number",
        *(unknown.metadata.message_id, to_signed(unknown.metadata.run_id), SERVER),
        *(Phase.DELIVERED.value, float("inf"), tx.now, unknown.SerializeToString()),
    )
    return number


def confirm(tx: Transaction, run_id: int, reader: int, message_id: str) -> None:
    """Note that a message that was handed out has arrived, with all its objects."""
    row = _find(tx, message_id)
    if row is None or (row.run, to_unsigned(row.reader)) != (run_id, reader):
        return
    if row.phase != Phase.HANDED_OUT:
        return
    if row.asked is None:
        release(tx, row)
        return
    instruction = _read(tx, "number = ?", row.asked)
    for one in (row, instruction):
        if one is not None:
            delete(tx, one)


def activate(tx: Transaction, node: NodeRecord) -> bool:
    """Store a node that was started anew, and knows nothing of what it had confirmed."""
    known = nodes.update(tx, node)
    if known:
        _lose(tx, f"reader = ? AND phase = {Phase.DELIVERED}", to_signed(node.node_id))
    return known


def lose(tx: Transaction, number: int) -> None:
    """Expect no reply to an instruction any more."""
    _lose(tx, "number = ?", number)


def _lose(tx: Transaction, which: str, value: int) -> None:
    lost = tx.execute(
        "UPDATE superlink_message SET expires_at = least(expires_at, ?)"
        f" WHERE {which} AND asked IS NULL AND reply IS NULL RETURNING message_id",
        *(tx.now, value),
    ).fetchall()
    for (message_id,) in lost:
        tx.notify(ChangeKind.REPLY, message_id)


def release(tx: Transaction, row: Row) -> None:
    """Let go of a message's objects: nobody is given it any more."""
    released = tx.execute(
        f"UPDATE superlink_message SET phase = {Phase.DELIVERED}, root = NULL, tree_id = NULL"
        " WHERE number = ? AND phase = ?",
        *(row.number, row.phase),
    )
    if released.rowcount:
        tx.release(row.root, row.tree_id)


def delete(tx: Transaction, row: Row) -> None:
    """Delete a message, and the objects that only it had."""
    tx.execute("DELETE FROM superlink_message WHERE number = ?", row.number)
    tx.release(row.root, row.tree_id)
