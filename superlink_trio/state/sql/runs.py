"""Steps about runs and their bundles."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from superlink_trio.state.ids import draw_id
from superlink_trio.state.sql.transaction import Reading, Transaction
from superlink_trio.wire.runs import Fab, Run, Scalar

_BYTES = "base64"


def create(tx: Transaction, run: Run, fab: Fab | None) -> int:
    """Store a run and its bundle."""
    if fab is not None:
        store_fab(tx, fab)
    run_id = draw_id()
    config = write_config(run.override_config)
    values = (run_id, run.fab_id, run.fab_version, run.fab_hash, config)
    columns = ("run_id", "fab_id", "fab_version", "fab_hash", "override_config")
    # A file of an older release of the reference has only some of the columns.
    theirs = {
        name: value
        for name, value in zip(columns, values, strict=True)
        if tx.has_column("run", name)
    }
    marks = ", ".join("?" * len(theirs))
    tx.execute(f"INSERT INTO run({', '.join(theirs)}) VALUES ({marks})", *theirs.values())
    tx.execute("INSERT INTO superlink_run VALUES (?, ?, ?, ?, ?)", *values)
    return run_id


def store_fab(tx: Transaction, fab: Fab) -> None:
    """Store a bundle, unless it is there."""
    # It must not go before a run refers to it.
    if not tx.exists("SELECT 1 FROM superlink_fab WHERE hash = ? FOR KEY SHARE", fab.hash):
        tx.limits.check_asked(tx.stored_size(), len(fab.content))
        tx.execute(
            "INSERT INTO superlink_fab VALUES (?, ?) ON CONFLICT(hash) DO NOTHING",
            *(fab.hash, fab.content),
        )


def exists(tx: Reading, run_id: int) -> bool:
    """Say whether a run is known."""
    return tx.exists("SELECT 1 FROM run WHERE run_id = ?", run_id)


def read(tx: Reading, run_id: int) -> Run | None:
    """Read a run, one of the reference's too."""
    cursor = tx.execute("SELECT * FROM superlink_run WHERE run_id = ?", run_id)
    row = cursor.fetchone()
    if row is None:
        cursor = tx.execute("SELECT * FROM run WHERE run_id = ?", run_id)
        row = cursor.fetchone()
    if row is None:
        return None
    names = [column[0] for column in cursor.description or ()]
    found = dict(zip(names, row, strict=True))
    return Run(
        run_id=run_id,
        fab_id=found.get("fab_id") or "",
        fab_version=found.get("fab_version") or "",
        fab_hash=found.get("fab_hash") or "",
        override_config=read_config(found.get("override_config") or "{}"),
    )


def read_fab(tx: Reading, fab_hash: str) -> Fab | None:
    """Read a bundle."""
    content = tx.value("SELECT content FROM superlink_fab WHERE hash = ?", fab_hash)
    return None if content is None else Fab(hash=fab_hash, content=content)


def write_config(config: Mapping[str, Scalar]) -> str:
    """Put a run's configuration into text."""

    def pack(value: Scalar) -> object:
        # JSON has no bytes, and the reference's own configurations have none either.
        if isinstance(value, bytes):
            return {_BYTES: base64.b64encode(value).decode("ascii")}
        return value

    return json.dumps({key: pack(value) for key, value in config.items()})


def read_config(text: str) -> Mapping[str, Scalar]:
    """Read what `write_config` wrote."""
    return {
        key: base64.b64decode(value[_BYTES]) if isinstance(value, dict) else value
        for key, value in json.loads(text).items()
    }
