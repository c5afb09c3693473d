"""Steps that delete what nobody can ask for any more, a portion at a time.

Which messages those are is said by `rules.fate`, and here by the SQL that picks them.
"""

from __future__ import annotations

from superlink_trio.state.messages.interface import SESSION_TIMEOUT
from superlink_trio.state.messages.rules import Phase
from superlink_trio.state.sql.messages.messages import FIELDS, Row, delete, lose, release
from superlink_trio.state.sql.messages.transaction import Transaction

# Messages that one step deletes: each may have a large model for itself.
_PORTION = 20

# Roots and trees that one step deletes.
_LOOSE = 100

_FIELDS = ", ".join(f"message.{name}" for name in Row._fields)

_GIVEN_UP = f"""SELECT {_FIELDS} FROM superlink_message AS message
    JOIN superlink_tree AS tree USING (tree_id)
    WHERE phase = {Phase.ARRIVING} AND message.heard_at < ? AND tree.heard_at < ? LIMIT ?
    FOR UPDATE OF message SKIP LOCKED"""

_FORGOTTEN = f"""SELECT {FIELDS} FROM superlink_message WHERE asked IS NULL AND reply IS NULL
    AND expires_at < ? AND phase != {Phase.DROPPED} LIMIT ? FOR UPDATE SKIP LOCKED"""

_OUT_OF_TIME = f"""SELECT {FIELDS} FROM superlink_message WHERE asked IS NULL
    AND root IS NOT NULL AND expires_at < ? AND phase != {Phase.DROPPED} LIMIT ?
    FOR UPDATE SKIP LOCKED"""


def sweep(tx: Transaction) -> bool:
    """Delete a portion of what came to nothing; say whether there may be more."""
    long_ago = tx.now - SESSION_TIMEOUT
    # What another process took in while the run ended was not there to be dropped.
    tx.execute(
        f"UPDATE superlink_message SET phase = {Phase.DROPPED} WHERE phase != {Phase.DROPPED}"
        " AND run_id IN (SELECT run_id FROM superlink_app_run WHERE finished_at > ?)",
        long_ago,
    )
    gone = [
        Row._make(row)
        for query, before in ((_GIVEN_UP, (long_ago, long_ago)), (_FORGOTTEN, (long_ago,)))
        for row in tx.execute(query, *before, _PORTION).fetchall()
    ]
    for row in {row.number: row for row in gone}.values():
        delete(tx, row)
        if row.asked is not None:
            lose(tx, row.asked)
    old = [Row._make(row) for row in tx.execute(_OUT_OF_TIME, tx.now, _PORTION).fetchall()]
    for row in old:
        release(tx, row)
    return len(gone) >= _PORTION or len(old) == _PORTION


def purge(tx: Transaction) -> bool:
    """Delete a portion of the messages of runs that are over, and of what nobody refers to.

    Say whether there may be more.
    """
    dropped = tx.execute(
        f"SELECT {FIELDS} FROM superlink_message WHERE phase = {Phase.DROPPED}"
        " ORDER BY number LIMIT ? FOR UPDATE SKIP LOCKED",
        _PORTION,
    ).fetchall()
    for row in map(Row._make, dropped):
        delete(tx, row)
    more = tx.collect(_LOOSE)
    return more or len(dropped) == _PORTION
