"""The tables: the reference's, as it makes them, and ours.

Ours begin with `superlink_`. They refer to rows of the reference and go with them, so that the
reference may work on the file between two runs of this program. The reference inserts by
position: its tables never get a column or lose one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from superlink_trio.state.sqlite.transaction import Transaction
from superlink_trio.wire.tasks import OVERHEAD

_TASK_COLUMNS = """(
    task_id TEXT UNIQUE, group_id TEXT, run_id INTEGER,
    producer_anonymous BOOLEAN, producer_node_id INTEGER,
    consumer_anonymous BOOLEAN, consumer_node_id INTEGER,
    created_at REAL, delivered_at TEXT, pushed_at REAL, ttl REAL,
    ancestry TEXT, task_type TEXT, recordset BLOB,
    FOREIGN KEY(run_id) REFERENCES run(run_id))"""


# As Flower 1.11 lays out a file. A file of an older release keeps what it has.
REFERENCE: Sequence[str] = (
    """CREATE TABLE IF NOT EXISTS run(
        run_id INTEGER UNIQUE, fab_id TEXT, fab_version TEXT, fab_hash TEXT,
        override_config TEXT)""",
    f"CREATE TABLE IF NOT EXISTS task_ins{_TASK_COLUMNS}",
    f"CREATE TABLE IF NOT EXISTS task_res{_TASK_COLUMNS}",
    """CREATE TABLE IF NOT EXISTS node(
        node_id INTEGER UNIQUE, online_until REAL, ping_interval REAL, public_key BLOB)""",
    "CREATE TABLE IF NOT EXISTS credential(private_key BLOB PRIMARY KEY, public_key BLOB)",
    "CREATE TABLE IF NOT EXISTS public_key(public_key BLOB UNIQUE)",
    "CREATE INDEX IF NOT EXISTS idx_online_until ON node(online_until)",
)

# `phase`: the numbers of `rules.Phase`.
# `holder` and `answer_holder`: the process that has the TaskIns, or its answer, under way.
# `collected`: the numbers of `sql.rows.Collected`.
_FIRST: Sequence[str] = (
    """CREATE TABLE superlink_task(
        number INTEGER PRIMARY KEY,
        task_id TEXT NOT NULL UNIQUE REFERENCES task_ins(task_id) ON DELETE CASCADE,
        node_id INTEGER NOT NULL,
        phase INTEGER NOT NULL,
        expires_at REAL NOT NULL,
        deliveries INTEGER NOT NULL DEFAULT 0,
        connection TEXT NOT NULL DEFAULT '',
        holder INTEGER,
        answer_holder INTEGER,
        collected INTEGER NOT NULL DEFAULT 0,
        answer_id TEXT,
        answer_size INTEGER,
        answer_code INTEGER,
        answer_reason TEXT,
        code INTEGER,
        reason TEXT,
        payload_id INTEGER)""",
    "CREATE INDEX superlink_queued ON superlink_task(node_id, number) WHERE phase = 0",
    "CREATE INDEX superlink_handed_over ON superlink_task(node_id) WHERE phase = 2",
    "CREATE INDEX superlink_open ON superlink_task(expires_at) WHERE phase < 3",
    "CREATE INDEX superlink_expires ON superlink_task(expires_at)",
    "CREATE INDEX superlink_holder ON superlink_task(holder) WHERE holder IS NOT NULL",
    """CREATE INDEX superlink_answer_holder ON superlink_task(answer_holder)
        WHERE answer_holder IS NOT NULL""",
    """CREATE INDEX superlink_payload_users ON superlink_task(payload_id)
        WHERE payload_id IS NOT NULL""",
    """CREATE TABLE superlink_payload(
        payload_id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, content BLOB NOT NULL)""",
    """CREATE TRIGGER superlink_payload_after_delete AFTER DELETE ON superlink_task
        WHEN old.payload_id IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM superlink_task WHERE payload_id = old.payload_id)
        BEGIN DELETE FROM superlink_payload WHERE payload_id = old.payload_id; END""",
    """CREATE TRIGGER superlink_payload_after_update AFTER UPDATE OF payload_id ON superlink_task
        WHEN old.payload_id IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM superlink_task WHERE payload_id = old.payload_id)
        BEGIN DELETE FROM superlink_payload WHERE payload_id = old.payload_id; END""",
    """CREATE TABLE superlink_run(
        run_id INTEGER PRIMARY KEY REFERENCES run(run_id) ON DELETE CASCADE,
        fab_id TEXT NOT NULL, fab_version TEXT NOT NULL, fab_hash TEXT NOT NULL,
        override_config TEXT NOT NULL)""",
    "CREATE TABLE superlink_fab(hash TEXT PRIMARY KEY, content BLOB NOT NULL)",
    "CREATE TABLE superlink_deleted_node(node_id INTEGER PRIMARY KEY, deleted_at REAL NOT NULL)",
    """CREATE TABLE superlink_node_key(
        public_key BLOB PRIMARY KEY,
        node_id INTEGER NOT NULL UNIQUE REFERENCES node(node_id) ON DELETE CASCADE)""",
    "CREATE INDEX superlink_deleted_at ON superlink_deleted_node(deleted_at)",
    """CREATE TABLE superlink_process(
        process_id INTEGER PRIMARY KEY AUTOINCREMENT, socket TEXT NOT NULL)""",
    """CREATE TABLE superlink_news(
        number INTEGER PRIMARY KEY AUTOINCREMENT, kind INTEGER NOT NULL, key, value)""",
)

_STORED = "UPDATE superlink_total SET stored = stored"
_LENGTH = "(SELECT length(content) FROM {0} WHERE {1} = {2}.{1})"
_PAYLOAD = "superlink_payload", "payload_id"

# `size`: bytes of a task without its answer, and without a payload that lies in superlink_payload.
# `superlink_total` has one row. That payloads are measured by a query and not as `new.content` or
# `old.content` spares SQLite from reading them.
_SECOND: Sequence[str] = (
    "ALTER TABLE superlink_task ADD COLUMN size INTEGER NOT NULL DEFAULT 0",
    """UPDATE superlink_task SET size = 1024 + coalesce(
        (SELECT length(recordset) FROM task_ins WHERE task_id = superlink_task.task_id), 0)""",
    "CREATE TABLE superlink_total(nodes INTEGER NOT NULL, stored INTEGER NOT NULL)",
    """INSERT INTO superlink_total SELECT (SELECT count(*) FROM node),
        (SELECT coalesce(sum(size + coalesce(answer_size, 0)), 0) FROM superlink_task)
        + (SELECT coalesce(sum(length(content)), 0) FROM superlink_payload)
        + (SELECT coalesce(sum(length(content)), 0) FROM superlink_fab)""",
    "CREATE TABLE superlink_unanswered(node_id INTEGER PRIMARY KEY, tasks INTEGER NOT NULL)",
    """INSERT INTO superlink_unanswered
        SELECT node_id, count(*) FROM superlink_task WHERE phase < 3 GROUP BY node_id""",
    """CREATE TRIGGER superlink_count_node AFTER INSERT ON node
        BEGIN UPDATE superlink_total SET nodes = nodes + 1; END""",
    """CREATE TRIGGER superlink_discount_node AFTER DELETE ON node
        BEGIN UPDATE superlink_total SET nodes = nodes - 1; END""",
    f"""CREATE TRIGGER superlink_count_payload AFTER INSERT ON superlink_payload
        BEGIN {_STORED} + {_LENGTH.format(*_PAYLOAD, "new")}; END""",
    f"""CREATE TRIGGER superlink_discount_payload BEFORE DELETE ON superlink_payload
        BEGIN {_STORED} - {_LENGTH.format(*_PAYLOAD, "old")}; END""",
    f"""CREATE TRIGGER superlink_count_fab AFTER INSERT ON superlink_fab
        BEGIN {_STORED} + {_LENGTH.format("superlink_fab", "hash", "new")}; END""",
    f"""CREATE TRIGGER superlink_count_task AFTER INSERT ON superlink_task BEGIN
        {_STORED} + new.size;
        INSERT INTO superlink_unanswered SELECT new.node_id, 1 WHERE new.phase < 3
            ON CONFLICT(node_id) DO UPDATE SET tasks = tasks + 1; END""",
    f"""CREATE TRIGGER superlink_recount_task AFTER UPDATE OF size, answer_size ON superlink_task
        BEGIN {_STORED} + new.size - old.size
            + coalesce(new.answer_size, 0) - coalesce(old.answer_size, 0); END""",
    f"""CREATE TRIGGER superlink_discount_task AFTER DELETE ON superlink_task BEGIN
        {_STORED} - old.size - coalesce(old.answer_size, 0);
        UPDATE superlink_unanswered SET tasks = tasks - 1
            WHERE node_id = old.node_id AND old.phase < 3;
        DELETE FROM superlink_unanswered WHERE node_id = old.node_id AND tasks = 0; END""",
    """CREATE TRIGGER superlink_close_task AFTER UPDATE OF phase ON superlink_task
        WHEN old.phase < 3 AND new.phase = 3 BEGIN
        UPDATE superlink_unanswered SET tasks = tasks - 1 WHERE node_id = old.node_id;
        DELETE FROM superlink_unanswered WHERE node_id = old.node_id AND tasks = 0; END""",
)

# From here on `superlink_process.socket` is the name of a process and no path any more: who knows
# processes by the paths of their sockets must not open the file.
_THIRD: Sequence[str] = (
    """CREATE TABLE superlink_simulated_node(
        node_id INTEGER PRIMARY KEY REFERENCES node(node_id) ON DELETE CASCADE,
        process_id INTEGER NOT NULL)""",
    "CREATE INDEX superlink_simulating ON superlink_simulated_node(process_id)",
)

_KEEPS_MESSAGES = 4

_OBJECT_LENGTH = _LENGTH.format("superlink_object", "number", "{}")

# What Flower 1.23 and later has, which the tables of the reference have no place for. Ids, which
# are unsigned there, are stored as the signed number of the same bits.
# `phase`: the numbers of `messages.rules.Phase`. `token`: its SHA-256.
# A tree is what of a message's tree is below its root: that is equal in all messages of a round.
# `missing`: how many of its objects are not here yet.
# `superlink_serving` has one row while a process serves these nodes, or since it was killed.
_FOURTH: Sequence[str] = (
    """CREATE TABLE superlink_supernode(
        node_id INTEGER PRIMARY KEY, public_key BLOB NOT NULL UNIQUE, registered_at REAL NOT NULL,
        activated_at REAL, deactivated_at REAL, online_until REAL NOT NULL,
        heartbeat_interval REAL NOT NULL, name TEXT NOT NULL, location TEXT NOT NULL)""",
    """CREATE TABLE superlink_unregistered(
        number INTEGER PRIMARY KEY AUTOINCREMENT, node_id INTEGER NOT NULL UNIQUE)""",
    """CREATE TABLE superlink_app_run(
        number INTEGER PRIMARY KEY, run_id INTEGER NOT NULL UNIQUE, task_id INTEGER NOT NULL,
        series_id INTEGER NOT NULL, fab_id TEXT NOT NULL, fab_version TEXT NOT NULL,
        fab_hash TEXT NOT NULL, override_config TEXT NOT NULL, pending_at REAL NOT NULL,
        starting_at REAL NOT NULL, running_at REAL NOT NULL, finished_at REAL NOT NULL,
        status TEXT NOT NULL, outcome TEXT, details TEXT NOT NULL,
        token BLOB UNIQUE, log_size INTEGER NOT NULL DEFAULT 0)""",
    """CREATE INDEX superlink_live_run ON superlink_app_run(number)
        WHERE status != 'finished'""",
    """CREATE TABLE superlink_app_log(
        number INTEGER PRIMARY KEY, run_id INTEGER NOT NULL, logged_at REAL NOT NULL,
        content TEXT NOT NULL)""",
    "CREATE INDEX superlink_logged ON superlink_app_log(run_id, logged_at)",
    """CREATE TABLE superlink_object(
        number INTEGER PRIMARY KEY, object_id TEXT NOT NULL UNIQUE, content BLOB)""",
    """CREATE TABLE superlink_tree(
        tree_id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, missing INTEGER NOT NULL,
        heard_at REAL NOT NULL, content BLOB NOT NULL)""",
    """CREATE TABLE superlink_part(
        object INTEGER NOT NULL, tree_id INTEGER NOT NULL,
        PRIMARY KEY(object, tree_id)) WITHOUT ROWID""",
    "CREATE INDEX superlink_part_of ON superlink_part(tree_id)",
    """CREATE TABLE superlink_message(
        number INTEGER PRIMARY KEY AUTOINCREMENT, message_id TEXT NOT NULL UNIQUE,
        run_id INTEGER NOT NULL, source INTEGER NOT NULL, reader INTEGER NOT NULL,
        phase INTEGER NOT NULL, expires_at REAL NOT NULL, heard_at REAL NOT NULL,
        asked INTEGER, reply INTEGER, root INTEGER, tree_id INTEGER, content BLOB NOT NULL)""",
    "CREATE INDEX superlink_message_run ON superlink_message(run_id)",
    """CREATE INDEX superlink_instruction ON superlink_message(reader, phase, number)
        WHERE asked IS NULL""",
    """CREATE INDEX superlink_instruction_expires ON superlink_message(expires_at)
        WHERE asked IS NULL""",
    "CREATE INDEX superlink_message_root ON superlink_message(root) WHERE root IS NOT NULL",
    """CREATE INDEX superlink_message_tree ON superlink_message(tree_id, phase, reader)
        WHERE tree_id IS NOT NULL""",
    "CREATE INDEX superlink_arriving ON superlink_message(heard_at) WHERE phase = 0",
    "CREATE INDEX superlink_dropped ON superlink_message(number) WHERE phase = 4",
    f"""CREATE TRIGGER superlink_discount_fab BEFORE DELETE ON superlink_fab
        BEGIN {_STORED} - {_LENGTH.format("superlink_fab", "hash", "old")}; END""",
    f"""CREATE TRIGGER superlink_count_object AFTER UPDATE OF content ON superlink_object
        WHEN old.content IS NULL BEGIN {_STORED} + {_OBJECT_LENGTH.format("new")}; END""",
    f"""CREATE TRIGGER superlink_discount_object BEFORE DELETE ON superlink_object
        BEGIN {_STORED} - coalesce({_OBJECT_LENGTH.format("old")}, 0); END""",
    "CREATE TABLE superlink_serving(process_id INTEGER NOT NULL)",
)

# `simulation`: a SimulationConfig of Flower's, NULL where the run is none. `registered_itself`: of
# nodes that were there before nobody knows, and they stay.
_FIFTH: Sequence[str] = (
    "ALTER TABLE superlink_app_run ADD COLUMN simulation BLOB",
    "ALTER TABLE superlink_supernode ADD COLUMN registered_itself INTEGER NOT NULL DEFAULT 0",
    """CREATE INDEX superlink_gives_way ON superlink_supernode(
        max(online_until, coalesce(deactivated_at, 0), registered_at)) WHERE registered_itself""",
)

MIGRATIONS: Sequence[Sequence[str]] = (_FIRST, _SECOND, _THIRD, _FOURTH, _FIFTH)
"""Forward only: entry n leads from version n to n + 1. What was released never changes."""

# What the reference did to the file since we last had it, brought into our tables.
_ADOPT: Sequence[str] = (
    f"""INSERT INTO superlink_task(size, task_id, node_id, phase, expires_at, deliveries)
        SELECT {OVERHEAD} + length(recordset) + 4 * length(group_id || task_type || ancestry) + 60,
            task_id, CASE WHEN consumer_anonymous THEN 0 ELSE consumer_node_id END,
            CASE WHEN delivered_at = '' THEN 0 ELSE 2 END, pushed_at + ttl,
            CASE WHEN delivered_at = '' THEN 0 ELSE 1 END
        FROM task_ins WHERE task_id NOT IN (SELECT task_id FROM superlink_task)
        ORDER BY rowid""",
    """UPDATE superlink_task SET phase = 2, deliveries = 1
        WHERE phase = 0 AND payload_id IS NULL AND code IS NULL AND task_id IN (
            SELECT task_id FROM task_ins WHERE delivered_at != '')""",
    f"""UPDATE superlink_task
        SET phase = 3, payload_id = NULL, answer_id = answer.task_id, answer_size = {OVERHEAD}
            + length(answer.recordset)
            + 4 * length(answer.group_id || answer.task_type || answer.ancestry) + 60
        FROM task_res AS answer
        WHERE answer.ancestry = superlink_task.task_id AND superlink_task.answer_id IS NULL""",
)

_ADOPT_KEYS = """INSERT OR IGNORE INTO superlink_node_key(public_key, node_id)
    SELECT public_key, node_id FROM node WHERE length(public_key) > 0"""


def version(connection: sqlite3.Connection) -> int:
    """Give the version of our part of the schema; 0 where there is none yet."""
    ours = "SELECT 1 FROM sqlite_master WHERE name = 'superlink_schema'"
    if connection.execute(ours).fetchone() is None:
        return 0
    (found,) = connection.execute("SELECT version FROM superlink_schema").fetchone()
    return int(found)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date, inside the caller's transaction."""
    for statement in REFERENCE:
        connection.execute(statement)
    found = version(connection)
    if found == 0:
        connection.execute("CREATE TABLE superlink_schema(version INTEGER NOT NULL)")
        connection.execute("INSERT INTO superlink_schema VALUES (0)")
    for migration in MIGRATIONS[found:]:
        for statement in migration:
            connection.execute(statement)
    connection.execute("UPDATE superlink_schema SET version = ?", (len(MIGRATIONS),))


def adopt(tx: Transaction) -> None:
    """Take over what another program than this one put into the reference's tables."""
    for statement in _ADOPT:
        tx.execute(statement)
    if tx.has_column("node", "public_key"):
        tx.execute(_ADOPT_KEYS)


def keeps_messages(connection: sqlite3.Connection) -> bool:
    """Say whether there are tables for Flower 1.23 and later."""
    return version(connection) >= _KEEPS_MESSAGES
