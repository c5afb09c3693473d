"""Steps about objects: each is kept once, for as long as a message refers to it.

A message refers to its root, and to a tree of the objects below it. Equal trees are one, so that
a model for a thousand nodes is a thousand roots and one tree.

CROSS JOIN is SQLite's word for a join in the order that is written: its planner knows nothing of
how many rows there are, and would go through all messages of a run.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from superlink_trio.state.messages.ids import to_signed
from superlink_trio.state.messages.rules import Phase
from superlink_trio.state.sqlite.transaction import Reading, Transaction


def refer(tx: Transaction, object_id: str) -> int:
    """Give the number of an object, which somebody is about to refer to."""
    tx.execute("INSERT OR IGNORE INTO superlink_object(object_id) VALUES (?)", object_id)
    return int(tx.value("SELECT number FROM superlink_object WHERE object_id = ?", object_id))


def refer_to_tree(tx: Transaction, digest: bytes, content: bytes, parts: Sequence[str]) -> int:
    """Give the number of a tree, which somebody is about to refer to; `parts`: its objects."""
    known: int | None = tx.value("SELECT tree_id FROM superlink_tree WHERE digest = ?", digest)
    if known is not None:
        return known
    numbers = [refer(tx, object_id) for object_id in parts]
    tree_id = tx.execute(
        "INSERT INTO superlink_tree(digest, missing, heard_at, content) VALUES (?, 0, ?, ?)",
        *(digest, tx.now, content),
    ).lastrowid
    assert tree_id is not None, "an INSERT has one"
    tx.connection.executemany(
        "INSERT INTO superlink_part(object, tree_id) VALUES (?, ?)",
        [(number, tree_id) for number in numbers],
    )
    tx.execute(
        "UPDATE superlink_tree SET missing = (SELECT count(*) FROM superlink_part JOIN"
        " superlink_object ON number = object WHERE tree_id = ? AND superlink_object.content"
        " IS NULL) WHERE tree_id = ?",
        *(tree_id, tree_id),
    )
    return tree_id


def missing_below(tx: Reading, tree_id: int) -> list[str]:
    """Give the objects of a tree that are not here."""
    rows = tx.execute(
        "SELECT object_id FROM superlink_part JOIN superlink_object ON number = object"
        " WHERE tree_id = ? AND content IS NULL ORDER BY number",
        tree_id,
    )
    return [object_id for (object_id,) in rows.fetchall()]


def is_missing(tx: Reading, number: int) -> bool:
    """Say whether an object is not here."""
    query = "SELECT 1 FROM superlink_object WHERE number = ? AND content IS NULL"
    return tx.exists(query, number)


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
    found = tx.value(
        "SELECT count(*) FROM json_each(?) CROSS JOIN superlink_object ON object_id = value"
        " CROSS JOIN superlink_part ON object = superlink_object.number WHERE tree_id = ?",
        *(json.dumps(list(object_ids)), tree_id),
    )
    return bool(found == len(object_ids))


def put(tx: Transaction, number: int, content: bytes) -> None:
    """Store the content of an object that is missing."""
    tx.execute("UPDATE superlink_object SET content = ? WHERE number = ?", content, number)
    tx.execute(
        "UPDATE superlink_tree SET missing = missing - 1, heard_at = ? WHERE tree_id IN"
        " (SELECT tree_id FROM superlink_part WHERE object = ?)",
        *(tx.now, number),
    )
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


def release(tx: Transaction, root: int | None, tree_id: int | None) -> None:
    """Delete a root and a tree that a message has referred to, if nothing else does."""
    candidates = [] if root is None else [root]
    tree = "SELECT 1 FROM superlink_message WHERE tree_id = ?"
    if tree_id is not None and not tx.exists(tree, tree_id):
        parts = tx.execute("SELECT object FROM superlink_part WHERE tree_id = ?", tree_id)
        candidates += [number for (number,) in parts.fetchall()]
        tx.execute("DELETE FROM superlink_part WHERE tree_id = ?", tree_id)
        tx.execute("DELETE FROM superlink_tree WHERE tree_id = ?", tree_id)
    tx.connection.executemany(
        "DELETE FROM superlink_object WHERE number = ?"
        " AND NOT EXISTS (SELECT 1 FROM superlink_message WHERE root = ?)"
        " AND NOT EXISTS (SELECT 1 FROM superlink_part WHERE object = ?)",
        [(number, number, number) for number in candidates],
    )
