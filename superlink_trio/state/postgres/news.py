"""What processes over one database tell each other: rows, and a hint that there are some."""

from __future__ import annotations

from collections.abc import Sequence

from superlink_trio.state.durable.engine import Change, ChangeKind
from superlink_trio.state.postgres.processes import Locks
from superlink_trio.state.postgres.transaction import Reading, Transaction


def publish(tx: Transaction, locks: Locks, changes: Sequence[Change], sender: int) -> None:
    """Write changes down for each of the others. `sender`: see `Session.number`."""
    with tx.connection.pipeline():
        tx.execute(
            "INSERT INTO superlink_news(process_id, kind, key, value)"
            " SELECT process_id, kind, key, value FROM superlink_process CROSS JOIN"
            " unnest(?::int[], ?::text[], ?::bigint[]) WITH ORDINALITY"
            " AS change(kind, key, value, place) WHERE process_id != ? ORDER BY place",
            [int(change.kind) for change in changes],
            [str(change.key) for change in changes],
            [change.value for change in changes],
            tx.me,
        )
        # A hint, one for all of them: who does not hear it looks by itself a little later.
        tx.execute("SELECT pg_notify(?, ?)", locks.channel, str(sender))


def take(tx: Reading, me: int) -> Sequence[Change]:
    """Give what others have written for this process, in its order, and delete it."""
    news = tx.execute(
        "DELETE FROM superlink_news WHERE process_id = ? RETURNING number, kind, key, value", me
    )
    return [_to_change(*columns) for _, *columns in sorted(news.fetchall())]


def _to_change(kind: int, key: str, value: int | None) -> Change:
    # Of what concerns others, tasks and messages are named by texts, nodes and runs by numbers.
    named = ChangeKind(kind)
    by_text = named in (ChangeKind.SETTLED, ChangeKind.REPLY)
    return Change(named, key if by_text else int(key), value)
