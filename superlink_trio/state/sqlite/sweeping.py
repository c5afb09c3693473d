"""Steps that look after the file itself, and what lies beside it."""

from __future__ import annotations

from superlink_trio.state.sql.sweeping import evict, others
from superlink_trio.state.sqlite import presence
from superlink_trio.state.sqlite.transaction import Transaction

_SPARE_PAGES = 4096  # what the next round will use again anyway
_VACUUM_PAGES = 2048  # given back in one step


def give_back_space(tx: Transaction) -> bool:
    """Give a portion of the free pages back to the disk; say whether there may be more.

    It does nothing for a file that the reference made: such a file uses its free pages again,
    but never shrinks.
    """
    free, pages = tx.value("PRAGMA freelist_count"), tx.value("PRAGMA page_count")
    mode = tx.value("PRAGMA auto_vacuum")
    if mode != 2 or free <= max(_SPARE_PAGES, pages // 4):
        return False
    tx.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
    return True


def evict_ended(tx: Transaction) -> None:
    """Evict the processes that have ended, and remove what they left beside the file."""
    for process, name in others(tx, tx.me):
        if not presence.is_alive(tx.path, name):
            evict(tx, [process])
            presence.forget(tx.path, name)
