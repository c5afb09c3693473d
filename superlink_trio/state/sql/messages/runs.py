"""Steps about runs of Flower 1.23 and later, their tokens and logs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from superlink_trio.state.durable.engine import ChangeKind
from superlink_trio.state.messages import rules
from superlink_trio.state.messages.durable.engine import StoredRun
from superlink_trio.state.messages.ids import to_signed, to_unsigned
from superlink_trio.state.messages.interface import Logged, NotFound
from superlink_trio.state.messages.rules import Phase
from superlink_trio.state.sql.messages.transaction import Reading, Transaction
from superlink_trio.state.sql.runs import read_config, store_fab, write_config
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import Outcome, RunRecord, RunStatus
from superlink_trio.wire.runs import Fab

_COLUMNS = (
    "run_id, task_id, series_id, fab_id, fab_version, fab_hash, override_config, pending_at,"
    " starting_at, running_at, finished_at, status, outcome, details, simulation"
)
_LOCK = " FOR NO KEY UPDATE"
_LIVE = f"status != '{RunStatus.FINISHED.value}'"


def create(tx: Transaction, run: RunRecord, fab: Fab) -> None:
    """Store a run and its bundle."""
    store_fab(tx, fab)
    tx.execute(
        f"INSERT INTO superlink_app_run({_COLUMNS})"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *(to_signed(run.run_id), to_signed(run.task_id), to_signed(run.series_id)),
        *(run.fab_id, run.fab_version, run.fab_hash, write_config(run.override_config)),
        *(run.pending_at, run.starting_at, run.running_at, run.finished_at),
        *(run.status.value, None, run.details),
        None if run.simulation is None else run.simulation.SerializeToString(),
    )
    tx.notify(ChangeKind.APP_RUN, run.run_id, (run, b""))


def _to_record(row: Sequence[Any]) -> RunRecord:
    run_id, task_id, series_id, fab_id, fab_version, fab_hash, config, *times = row[:11]
    pending_at, starting_at, running_at, finished_at = times
    status, outcome, details, simulation = row[11:15]
    return RunRecord(
        run_id=to_unsigned(run_id),
        task_id=to_unsigned(task_id),
        series_id=to_unsigned(series_id),
        fab_id=fab_id,
        fab_version=fab_version,
        fab_hash=fab_hash,
        override_config=read_config(config),
        pending_at=pending_at,
        starting_at=starting_at,
        running_at=running_at,
        finished_at=finished_at,
        status=RunStatus(status),
        outcome=None if outcome is None else Outcome(outcome),
        details=details,
        simulation=None if simulation is None else pb.SimulationConfig.FromString(simulation),
    )


def read(tx: Reading, run_id: int) -> RunRecord | None:
    """Read a run."""
    return _read(tx, "run_id = ?", to_signed(run_id))


def _read(tx: Reading, which: str, *values: object, lock: str = "") -> RunRecord | None:
    query = f"SELECT {_COLUMNS} FROM superlink_app_run WHERE {which} LIMIT 1{lock}"
    row = tx.first(query, *values)
    return None if row is None else _to_record(row)


def newest(tx: Reading, limit: int, skip: int) -> Sequence[RunRecord]:
    """Give the newest runs, the newest first."""
    query = f"SELECT {_COLUMNS} FROM superlink_app_run ORDER BY number DESC LIMIT ? OFFSET ?"
    return [_to_record(row) for row in tx.execute(query, limit, skip).fetchall()]


def live(tx: Reading) -> Sequence[StoredRun]:
    """Give the runs that are not over, the oldest first."""
    return _stored(tx, f"{_LIVE} ORDER BY number")


def _stored(tx: Reading, which: str, *values: object) -> Sequence[StoredRun]:
    rows = tx.execute(
        f"SELECT {_COLUMNS}, token, (SELECT max(logged_at) FROM superlink_app_log AS log"
        f" WHERE log.run_id = run.run_id) FROM superlink_app_run AS run WHERE {which}",
        *values,
    )
    return [StoredRun(_to_record(row), row[15] or b"", row[16] or 0.0) for row in rows.fetchall()]


def look(tx: Transaction, run_ids: Collection[int]) -> None:
    """Look up runs that another process has changed, or may know of."""
    for run_id in run_ids:
        stored = _stored(tx, "run_id = ?", to_signed(run_id))
        tx.notify(ChangeKind.APP_RUN_SEEN, run_id, stored[0] if stored else None)


def look_by_token(tx: Transaction, token: bytes) -> None:
    """Look up the run of a token, by its SHA-256."""
    for stored in _stored(tx, "token = ?", token):
        tx.notify(ChangeKind.APP_RUN_SEEN, stored.record.run_id, stored)


def has_token(tx: Reading, token: bytes) -> bool:
    """Say whether a run has a token, by its SHA-256."""
    return tx.exists("SELECT 1 FROM superlink_app_run WHERE token = ?", token)


def goes_on(tx: Reading, run_id: int) -> bool:
    """Say whether a run is known and not over."""
    query = f"SELECT 1 FROM superlink_app_run WHERE run_id = ? AND {_LIVE}"
    return tx.exists(query, to_signed(run_id))


def claim(tx: Transaction, token: bytes) -> RunRecord | None:
    """Claim the oldest run that is pending, for who has the token with this SHA-256."""
    pending = f"{_LIVE} AND status = '{RunStatus.PENDING.value}' ORDER BY number"
    run = _read(tx, pending, lock=f"{_LOCK} SKIP LOCKED")
    return None if run is None else _write(tx, rules.claimed(run, tx.now), token)


def unclaim(tx: Transaction, token: bytes) -> bool:
    """Let a run that was claimed and not begun be claimed by others; say whether there is one."""
    run = _read(tx, "token = ?", token, lock=_LOCK)
    if run is None or run.status is not RunStatus.STARTING:
        return False
    _write(tx, rules.unclaimed(run), b"")
    return True


def give_up(tx: Transaction, token: bytes, heard_at: float) -> float | None:
    """End a claimed run whose process is silent, or let others claim it if it has not begun.

    `heard_at`: when this process has heard of it last. Gives when any has, or None where it was
    given up; the time where its token is void.
    """
    run = _read(tx, "token = ?", token, lock=_LOCK)
    if run is None:
        return tx.now
    heard_at = max(heard_at, tx.run_heard_at(run.run_id))
    if not rules.is_silent(run.status, heard_at, tx.now):
        return heard_at
    if run.status is RunStatus.STARTING:
        _write(tx, rules.unclaimed(run), b"")
    else:
        finish(tx, run.run_id, Outcome.FAILED, rules.SILENT)
    return None


def begin(tx: Transaction, token: bytes) -> RunRecord:
    """Note that a claimed run is running. Raises NotFound, and NotPermitted if it was begun."""
    run = _read(tx, "token = ?", token, lock=_LOCK)
    if run is None:
        raise NotFound(rules.NO_TOKEN)
    return _write(tx, rules.begun(run, tx.now), token)


def finish(tx: Transaction, run_id: int, outcome: Outcome, details: str) -> bool:
    """End a run and drop its messages; say whether it was not over yet."""
    run = _read(tx, "run_id = ?", to_signed(run_id), lock=_LOCK)
    if run is None or run.status is RunStatus.FINISHED:
        return False
    log(tx, run_id, rules.last_words(run_id, outcome, details))
    _write(tx, rules.finished(run, outcome, details, tx.now), b"")
    _forget_fab(tx, run.fab_hash)
    _forget_oldest_runs(tx)
    tx.execute(
        f"UPDATE superlink_message SET phase = {Phase.DROPPED} WHERE run_id = ?", to_signed(run_id)
    )
    return True


def _forget_oldest_runs(tx: Transaction) -> None:
    """Forget runs that are over, and logs of such, where there are more than are kept."""
    over = tx.execute(
        "SELECT run_id, row_number() OVER newest, sum(log_size) OVER newest"
        f" FROM superlink_app_run WHERE NOT {_LIVE} WINDOW newest AS (ORDER BY number DESC)"
    ).fetchall()
    for run_id, rank, logged in over:
        if rank > rules.KEPT_RUNS:
            tx.execute("DELETE FROM superlink_app_run WHERE run_id = ?", run_id)
        elif logged > rules.KEPT_LOGS:
            tx.execute("UPDATE superlink_app_run SET log_size = 0 WHERE run_id = ?", run_id)
        else:
            continue
        tx.execute("DELETE FROM superlink_app_log WHERE run_id = ?", run_id)


def _forget_fab(tx: Transaction, fab_hash: str) -> None:
    """Forget a bundle that no run has any more."""
    # Locked, it gets no new run; but one may have been committed before.
    tx.execute("SELECT 1 FROM superlink_fab WHERE hash = ? FOR UPDATE", fab_hash)
    tx.execute(
        "DELETE FROM superlink_fab WHERE hash = ?"
        f" AND NOT EXISTS (SELECT 1 FROM superlink_app_run WHERE {_LIVE} AND fab_hash = ?)"
        " AND NOT EXISTS (SELECT 1 FROM superlink_run WHERE fab_hash = ?)",
        *(fab_hash, fab_hash, fab_hash),
    )


def _write(tx: Transaction, run: RunRecord, token: bytes) -> RunRecord:
    tx.execute(
        "UPDATE superlink_app_run SET starting_at = ?, running_at = ?, finished_at = ?, status = ?,"
        " outcome = ?, details = ?, token = ? WHERE run_id = ?",
        *(run.starting_at, run.running_at, run.finished_at, run.status.value),
        *(run.outcome and run.outcome.value, run.details, token or None, to_signed(run.run_id)),
    )
    tx.notify(ChangeKind.APP_RUN, run.run_id, (run, token))
    return run


def log(tx: Transaction, run_id: int, text: str) -> None:
    """Keep what a run logs: a bounded amount, the oldest goes first."""
    if not text:
        return
    signed = to_signed(run_id)
    size = tx.value(f"SELECT log_size FROM superlink_app_run WHERE run_id = ?{_LOCK}", signed)
    if size is None:
        return
    latest = tx.value("SELECT max(logged_at) FROM superlink_app_log WHERE run_id = ?", signed)
    now = rules.next_moment(latest or 0.0, tx.now)
    columns = "superlink_app_log(run_id, logged_at, content)"
    tx.execute(f"INSERT INTO {columns} VALUES (?, ?, ?)", signed, now, text)
    size += len(text)
    while size > rules.LONGEST_LOG and (length := _forget_oldest(tx, signed, now)):
        size -= length
    tx.execute("UPDATE superlink_app_run SET log_size = ? WHERE run_id = ?", size, signed)
    tx.notify(ChangeKind.LOGGED, run_id, now)


def _forget_oldest(tx: Transaction, run_id: int, before: float) -> int:
    """Forget a run's oldest entry before a moment; give its length, 0 where there is none."""
    forgotten = tx.execute(
        "DELETE FROM superlink_app_log WHERE number = (SELECT number FROM superlink_app_log"
        " WHERE run_id = ? AND logged_at < ? ORDER BY logged_at LIMIT 1) RETURNING content",
        *(run_id, before),
    ).fetchall()
    return sum(len(text) for (text,) in forgotten)


def logs(tx: Reading, run_id: int, after: float) -> Logged:
    """Give what a run has logged after a moment. Raises NotFound."""
    run = read(tx, run_id)
    if run is None:
        raise NotFound(f"run {run_id} is not known")
    rows = tx.execute(
        "SELECT logged_at, content FROM superlink_app_log WHERE run_id = ? AND logged_at > ?"
        " ORDER BY logged_at",
        *(to_signed(run_id), after),
    ).fetchall()
    latest = rows[-1][0] if rows else after
    return Logged("".join(text for _, text in rows), latest, run.status is RunStatus.FINISHED)
