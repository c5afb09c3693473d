"""Objects and trees in the file. Each tree counts what it misses: who writes has the whole file."""

from __future__ import annotations

from collections.abc import Collection

from superlink_trio.state.sqlite.transaction import Transaction


def add_tree(tx: Transaction, digest: bytes, content: bytes, numbers: Collection[int]) -> int:
    """Add a tree of objects, by their numbers; give its own."""
    tree_id = int(
        tx.value(
            "INSERT INTO superlink_tree(digest, missing, heard_at, content) VALUES (?, 0, ?, ?)"
            " RETURNING tree_id",
            *(digest, tx.now, content),
        )
    )
    tx.execute_many(
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


def brought(tx: Transaction, number: int) -> None:
    """Note that an object is here now, which trees have missed."""
    tx.execute(
        "UPDATE superlink_tree SET missing = missing - 1, heard_at = ? WHERE tree_id IN"
        " (SELECT tree_id FROM superlink_part WHERE object = ?)",
        *(tx.now, number),
    )


def release(tx: Transaction, root: int | None, tree_id: int | None) -> None:
    """Delete a root and a tree that a message has referred to, if nothing else does."""
    candidates = [] if root is None else [root]
    tree = "SELECT 1 FROM superlink_message WHERE tree_id = ?"
    if tree_id is not None and not tx.exists(tree, tree_id):
        parts = tx.execute("SELECT object FROM superlink_part WHERE tree_id = ?", tree_id)
        candidates += [number for (number,) in parts.fetchall()]
        tx.execute("DELETE FROM superlink_part WHERE tree_id = ?", tree_id)
        tx.execute("DELETE FROM superlink_tree WHERE tree_id = ?", tree_id)
    tx.execute_many(
        "DELETE FROM superlink_object WHERE number = ?"
        " AND NOT EXISTS (SELECT 1 FROM superlink_message WHERE root = ?)"
        " AND NOT EXISTS (SELECT 1 FROM superlink_part WHERE object = ?)",
        [(number, number, number) for number in candidates],
    )
