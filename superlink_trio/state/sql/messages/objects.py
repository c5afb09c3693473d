"""Steps about objects: each is kept once, for as long as a message refers to it.

A message refers to its root, and to a tree of the objects below it. Equal trees are one, so that
a model for a thousand nodes is a thousand roots and one tree.

Who is about to refer to an object or a tree locks it: it does not go before that, and an object
does not come either, so that what is missing is counted right.

CROSS JOIN is SQLite's word for a join in the order that is written: its planner knows nothing of
how many rows there are, and would go through all messages of a run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from superlink_trio.state.messages.ids import to_signed
from superlink_trio.state.messages.rules import Phase
from superlink_trio.state.sql.messages.transaction import Reading, Transaction
from superlink_trio.state.sql.transaction import listed

_ADD = (
    "INSERT INTO superlink_object(object_id) SELECT value FROM json_each(?) WHERE true"
    " ON CONFLICT(object_id)"
)
_ADDED = "RETURNING object_id, number"


def refer(tx: Transaction, object_ids: Collection[str]) -> Mapping[str, int]:
    """Give the numbers of objects, which somebody is about to refer to."""
    # In one order everywhere: no two processes wait for each other.
    wanted = sorted(object_ids)
    numbers: dict[str, int] = dict(
        tx.execute(f"{_ADD} DO NOTHING {_ADDED}", listed(wanted)).fetchall()
    )
    known = [object_id for object_id in wanted if object_id not in numbers]
    if known:
        found = tx.execute(
            "SELECT object_id, number FROM json_each(?) CROSS JOIN superlink_object"
            " ON object_id = value ORDER BY object_id FOR SHARE OF superlink_object",
            listed(known),
        )
        numbers.update(found.fetchall())
    gone = [object_id for object_id in known if object_id not in numbers]
    if gone:
        # Another process has deleted them between the two; or has added them since.
        update = "DO UPDATE SET object_id = excluded.object_id"
        numbers.update(tx.execute(f"{_ADD} {update} {_ADDED}", listed(gone)).fetchall())
    return numbers


def refer_to_tree(tx: Transaction, digest: bytes, content: bytes, parts: Sequence[str]) -> int:
    """Give the number of a tree, which somebody is about to refer to; `parts`: its objects."""
    known: int | None = tx.value(
        "SELECT tree_id FROM superlink_tree WHERE digest = ? FOR KEY SHARE", digest
    )
    if known is not None:
        return known
    return tx.add_tree(digest, content, refer(tx, parts).values())


def missing_below(tx: Reading, tree_id: int) -> Collection[str]:
    """Give the objects of a tree that are not here."""
    rows = tx.execute(
        "SELECT object_id FROM superlink_part JOIN superlink_object ON number = object"
        " WHERE tree_id = ? AND content IS NULL",
        tree_id,
    )
    return {object_id for (object_id,) in rows.fetchall()}


def is_missing(tx: Reading, number: int) -> bool:
    """Say whether an object is not here."""
    query = "SELECT 1 FROM superlink_object WHERE number = ? AND content IS NULL"
    return tx.exists(query, number)


def exists(tx: Reading, object_id: str) -> bool:
    """Say whether somebody refers to an object."""
    return tx.exists("SELECT 1 FROM superlink_object WHERE object_id = ?", object_id)


def trees_that_miss(tx: Reading, number: int, run_id: int, source: int) -> Collection[int]:
    """Give the trees in which an object is missing, for messages of a run from a source."""
    arriving = f"phase = {Phase.ARRIVING} AND run_id = ? AND source = ?"
    of_message = to_signed(run_id), to_signed(source)
    rows = tx.execute(
        f"SELECT tree_id FROM superlink_message WHERE root = ? AND {arriving} UNION"
        " SELECT tree_id FROM superlink_part AS part WHERE object = ? AND EXISTS (SELECT 1"
        f" FROM superlink_message AS message WHERE message.tree_id = part.tree_id AND {arriving})",
        *(number, *of_message, number, *of_message),
    )
    return [tree_id for (tree_id,) in rows.fetchall()]


def are_all_in(tx: Reading, object_ids: Collection[str], tree_id: int) -> bool:
    """Say whether objects are all part of a tree."""
    if not object_ids:
        return True
    found = tx.value(
        "SELECT count(*) FROM json_each(?) CROSS JOIN superlink_object ON object_id = value"
        " CROSS JOIN superlink_part ON object = superlink_object.number WHERE tree_id = ?",
        *(listed(object_ids), tree_id),
    )
    return bool(found == len(object_ids))


def put(tx: Transaction, number: int, content: bytes) -> None:
    """Store the content of an object that is missing."""
    tx.execute("UPDATE superlink_object SET content = ? WHERE number = ?", content, number)
    tx.brought(number)
    tx.execute(
        f"UPDATE superlink_message SET heard_at = ? WHERE root = ? AND phase = {Phase.ARRIVING}",
        *(tx.now, number),
    )


def get(tx: Reading, run_id: int, reader: int, object_id: str) -> bytes | None:
    """Give an object of a message that was handed out to a reader; None if there is none."""
    handed_out = f"phase = {Phase.HANDED_OUT} AND run_id = ? AND reader = ?"
    of_message = to_signed(run_id), to_signed(reader)
    content: bytes | None = tx.value(
        "SELECT content FROM superlink_object AS object WHERE object_id = ? AND (EXISTS (SELECT 1"
        f" FROM superlink_message WHERE root = object.number AND {handed_out}) OR EXISTS (SELECT 1"
        " FROM superlink_part AS part CROSS JOIN superlink_message AS message"
        f" ON message.tree_id = part.tree_id WHERE part.object = object.number AND {handed_out}))",
        *(object_id, *of_message, *of_message),
    )
    return content
