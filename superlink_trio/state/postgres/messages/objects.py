"""Objects and trees in PostgreSQL, to which several processes refer at once.

Who refers to one locks it, and that a message has let go of one is only noted (`superlink_loose`):
nobody who answers a call waits for others to be sure that nothing else needs it. `collect` is, as
it locks what it is about to delete, and looks after that. What somebody has locked meanwhile is
looked at again later.
"""

from __future__ import annotations

from collections.abc import Collection

from superlink_trio.state.postgres.transaction import Transaction
from superlink_trio.state.sql.transaction import Cursor

WHOLE = """NOT EXISTS (SELECT 1 FROM superlink_part AS part
    WHERE part.tree_id = tree.tree_id AND part.missing)"""
"""See `sql.messages.transaction.Transaction`."""

# Seconds after which it is noted again that a tree is heard of: a row that others want to write.
_HEARD_EVERY = 10.0


def add_tree(tx: Transaction, digest: bytes, content: bytes, numbers: Collection[int]) -> int:
    """Add a tree of objects, by their numbers; give its own."""
    tree_id = int(
        tx.value(
            "INSERT INTO superlink_tree(digest, heard_at, content) VALUES (?, ?, ?)"
            " ON CONFLICT(digest) DO UPDATE SET digest = excluded.digest RETURNING tree_id",
            *(digest, tx.now, content),
        )
    )
    # It has them already if another process was faster.
    tx.execute(
        "INSERT INTO superlink_part(object, tree_id, missing) SELECT number, ?, content IS NULL"
        " FROM superlink_object WHERE number = ANY(?) ON CONFLICT DO NOTHING",
        *(tree_id, list(numbers)),
    )
    return tree_id


def brought(tx: Transaction, number: int) -> None:
    """Note that an object is here now, which trees have missed."""
    tx.execute(
        "WITH here AS (UPDATE superlink_part SET missing = false WHERE object = ?"
        " RETURNING tree_id) UPDATE superlink_tree SET heard_at = ? WHERE tree_id IN (SELECT"
        " tree_id FROM superlink_tree WHERE tree_id IN (SELECT tree_id FROM here)"
        " AND heard_at < ? FOR NO KEY UPDATE SKIP LOCKED)",
        *(number, tx.now, tx.now - _HEARD_EVERY),
    )


def release(tx: Transaction, root: int | None, tree_id: int | None) -> None:
    """Note that a message refers to a root and a tree no more."""
    tx.execute("INSERT INTO superlink_loose(tree_id, object) VALUES (?, ?)", tree_id, root)


def collect(tx: Transaction, most: int) -> bool:
    """Delete what no message refers to any more; say whether there may be more."""
    loose = tx.execute(
        "DELETE FROM superlink_loose WHERE number IN (SELECT number FROM superlink_loose"
        " ORDER BY number LIMIT ? FOR UPDATE SKIP LOCKED) RETURNING tree_id, object",
        most,
    ).fetchall()
    trees = {tree_id for tree_id, _ in loose if tree_id is not None}
    numbers = {root for _, root in loose if root is not None}
    passed_over = _delete_trees(tx, trees, numbers) + _delete_objects(tx, numbers)
    return len(loose) == most and not passed_over


def _delete_trees(tx: Transaction, tree_ids: Collection[int], numbers: set[int]) -> int:
    """Delete those of trees that no message refers to, and add the objects in them to `numbers`.

    Give how many others have locked.
    """
    locked = _column(
        tx.execute(
            "SELECT tree_id FROM superlink_tree WHERE tree_id = ANY(?) FOR UPDATE SKIP LOCKED",
            list(tree_ids),
        )
    )
    passed_over = tx.execute(
        "INSERT INTO superlink_loose(tree_id) SELECT tree_id FROM superlink_tree"
        " WHERE tree_id = ANY(?) AND NOT tree_id = ANY(?)",
        *(list(tree_ids), locked),
    ).rowcount
    unused = _column(
        tx.execute(
            "DELETE FROM superlink_tree AS tree WHERE tree_id = ANY(?) AND NOT EXISTS (SELECT 1"
            " FROM superlink_message AS message WHERE message.tree_id = tree.tree_id)"
            " RETURNING tree_id",
            locked,
        )
    )
    parts = "DELETE FROM superlink_part WHERE tree_id = ANY(?) RETURNING object"
    numbers.update(_column(tx.execute(parts, unused)))
    return passed_over


def _delete_objects(tx: Transaction, numbers: Collection[int]) -> int:
    """Delete those of objects that nothing refers to; give how many others have locked."""
    locked = _column(
        tx.execute(
            "SELECT number FROM superlink_object WHERE number = ANY(?) FOR UPDATE SKIP LOCKED",
            list(numbers),
        )
    )
    passed_over = tx.execute(
        "INSERT INTO superlink_loose(object) SELECT number FROM superlink_object"
        " WHERE number = ANY(?) AND NOT number = ANY(?)",
        *(list(numbers), locked),
    ).rowcount
    tx.execute(
        "DELETE FROM superlink_object AS o WHERE number = ANY(?)"
        " AND NOT EXISTS (SELECT 1 FROM superlink_message WHERE root = o.number)"
        " AND NOT EXISTS (SELECT 1 FROM superlink_part WHERE object = o.number)",
        locked,
    )
    return passed_over


def _column(rows: Cursor) -> list[int]:
    return [number for (number,) in rows.fetchall()]
