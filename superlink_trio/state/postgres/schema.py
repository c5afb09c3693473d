"""The tables in PostgreSQL: those of a file (see `sqlite.schema`), made anew.

They lie in the first schema of the search path. Totals are not kept in a row that everybody writes:
each transaction adds up what it changes (`superlink_counted`), and adds the sum to one of 64
subtotals before it commits, its connection's own (`superlink_settle`).
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from superlink_trio.state.postgres.messages import schema as messages

_TASK_COLUMNS = """(
    task_id TEXT PRIMARY KEY, group_id TEXT, run_id BIGINT,
    producer_anonymous BOOLEAN, producer_node_id BIGINT,
    consumer_anonymous BOOLEAN, consumer_node_id BIGINT,
    created_at DOUBLE PRECISION, delivered_at TEXT, pushed_at DOUBLE PRECISION,
    ttl DOUBLE PRECISION, ancestry TEXT, task_type TEXT, recordset BYTEA)"""

_TABLES = f"""
    CREATE TABLE run(
        run_id BIGINT PRIMARY KEY, fab_id TEXT, fab_version TEXT, fab_hash TEXT,
        override_config TEXT);
    CREATE TABLE node(
        node_id BIGINT PRIMARY KEY, online_until DOUBLE PRECISION,
        ping_interval DOUBLE PRECISION, public_key BYTEA);
    CREATE TABLE task_ins{_TASK_COLUMNS};
    CREATE TABLE task_res{_TASK_COLUMNS};
    CREATE INDEX superlink_online ON node(online_until);

    CREATE TABLE superlink_task(
        number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        task_id TEXT NOT NULL UNIQUE REFERENCES task_ins(task_id) ON DELETE CASCADE,
        node_id BIGINT NOT NULL,
        phase INTEGER NOT NULL,
        expires_at DOUBLE PRECISION NOT NULL,
        deliveries INTEGER NOT NULL DEFAULT 0,
        connection TEXT NOT NULL DEFAULT '',
        holder BIGINT,
        answer_holder BIGINT,
        collected INTEGER NOT NULL DEFAULT 0,
        answer_id TEXT,
        answer_size BIGINT,
        answer_code BIGINT,
        answer_reason TEXT,
        code BIGINT,
        reason TEXT,
        payload_id BIGINT,
        size BIGINT NOT NULL DEFAULT 0);
    CREATE INDEX superlink_queued ON superlink_task(node_id, number) WHERE phase = 0;
    CREATE INDEX superlink_handed_over ON superlink_task(node_id) WHERE phase = 2;
    CREATE INDEX superlink_open ON superlink_task(node_id) WHERE phase < 3;
    CREATE INDEX superlink_expires ON superlink_task(expires_at);
    CREATE INDEX superlink_holder ON superlink_task(holder) WHERE holder IS NOT NULL;
    CREATE INDEX superlink_answer_holder ON superlink_task(answer_holder)
        WHERE answer_holder IS NOT NULL;
    CREATE INDEX superlink_payload_users ON superlink_task(payload_id)
        WHERE payload_id IS NOT NULL;

    CREATE TABLE superlink_payload(
        payload_id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        digest BYTEA NOT NULL UNIQUE, content BYTEA NOT NULL);
    CREATE TABLE superlink_run(
        run_id BIGINT PRIMARY KEY REFERENCES run(run_id) ON DELETE CASCADE,
        fab_id TEXT NOT NULL, fab_version TEXT NOT NULL, fab_hash TEXT NOT NULL,
        override_config TEXT NOT NULL);
    CREATE TABLE superlink_fab(hash TEXT PRIMARY KEY, content BYTEA NOT NULL);
    CREATE TABLE superlink_deleted_node(
        node_id BIGINT PRIMARY KEY, deleted_at DOUBLE PRECISION NOT NULL);
    CREATE INDEX superlink_deleted_at ON superlink_deleted_node(deleted_at);
    CREATE TABLE superlink_node_key(
        public_key BYTEA PRIMARY KEY,
        node_id BIGINT NOT NULL UNIQUE REFERENCES node(node_id) ON DELETE CASCADE);
    CREATE TABLE superlink_process(
        process_id INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY, socket TEXT NOT NULL,
        alive_by INTEGER NOT NULL DEFAULT 0);
    CREATE UNLOGGED TABLE superlink_present(
        process_id INTEGER PRIMARY KEY
            REFERENCES superlink_process(process_id) ON DELETE CASCADE);
    CREATE TABLE superlink_simulated_node(
        node_id BIGINT PRIMARY KEY REFERENCES node(node_id) ON DELETE CASCADE,
        process_id INTEGER NOT NULL);
    CREATE INDEX superlink_simulating ON superlink_simulated_node(process_id);

    CREATE TABLE superlink_news(
        process_id INTEGER NOT NULL, number BIGINT GENERATED ALWAYS AS IDENTITY,
        kind INTEGER NOT NULL, key TEXT NOT NULL, value BIGINT, PRIMARY KEY(process_id, number));
"""

# Models are numbers, and hardly any smaller when compressed.
_STORAGE = """
    ALTER TABLE superlink_payload ALTER COLUMN content SET STORAGE EXTERNAL;
    ALTER TABLE superlink_fab ALTER COLUMN content SET STORAGE EXTERNAL;
    ALTER TABLE task_ins ALTER COLUMN recordset SET STORAGE EXTERNAL;
    ALTER TABLE task_res ALTER COLUMN recordset SET STORAGE EXTERNAL;
"""

_TOTALS = """
    CREATE TABLE superlink_subtotal(
        part INTEGER PRIMARY KEY, nodes BIGINT NOT NULL, stored BIGINT NOT NULL)
        WITH (fillfactor = 10);
    INSERT INTO superlink_subtotal SELECT part, 0, 0 FROM generate_series(0, 63) AS part;

    CREATE FUNCTION superlink_counted(what TEXT) RETURNS BIGINT LANGUAGE sql AS $$
        SELECT coalesce(nullif(current_setting('superlink.' || what, true), ''), '0')::bigint $$;
    CREATE FUNCTION superlink_count(what TEXT, more BIGINT) RETURNS VOID LANGUAGE sql AS $$
        SELECT set_config('superlink.' || what, (superlink_counted(what) + more)::text, true) $$;
    CREATE FUNCTION superlink_settle() RETURNS VOID LANGUAGE sql AS $$
        UPDATE superlink_subtotal SET nodes = nodes + superlink_counted('nodes'),
            stored = stored + superlink_counted('stored')
            WHERE part = pg_backend_pid() % 64
            AND (superlink_counted('nodes') != 0 OR superlink_counted('stored') != 0) $$;

    CREATE VIEW superlink_total AS SELECT
        (sum(nodes) + superlink_counted('nodes'))::bigint AS nodes,
        (sum(stored) + superlink_counted('stored'))::bigint AS stored FROM superlink_subtotal;
    CREATE VIEW superlink_unanswered AS
        SELECT node_id, count(*) AS tasks FROM superlink_task WHERE phase < 3 GROUP BY node_id;
"""

_TRIGGERS = """
    CREATE FUNCTION superlink_count_node() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
        PERFORM superlink_count('nodes', CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END);
        RETURN NULL; END $$;
    CREATE TRIGGER superlink_count AFTER INSERT OR DELETE ON node
        FOR EACH ROW EXECUTE FUNCTION superlink_count_node();

    CREATE FUNCTION superlink_count_content() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
        PERFORM superlink_count('stored', CASE TG_OP
            WHEN 'INSERT' THEN length(new.content) ELSE -length(old.content) END);
        RETURN NULL; END $$;
    CREATE TRIGGER superlink_count AFTER INSERT OR DELETE ON superlink_payload
        FOR EACH ROW EXECUTE FUNCTION superlink_count_content();
    CREATE TRIGGER superlink_count AFTER INSERT OR DELETE ON superlink_fab
        FOR EACH ROW EXECUTE FUNCTION superlink_count_content();

    CREATE FUNCTION superlink_count_task() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP != 'INSERT' THEN
            PERFORM superlink_count('stored', -old.size - coalesce(old.answer_size, 0));
        END IF;
        IF TG_OP != 'DELETE' THEN
            PERFORM superlink_count('stored', new.size + coalesce(new.answer_size, 0));
        END IF;
        RETURN NULL; END $$;
    CREATE TRIGGER superlink_count AFTER INSERT OR DELETE OR UPDATE OF size, answer_size
        ON superlink_task FOR EACH ROW EXECUTE FUNCTION superlink_count_task();

    CREATE FUNCTION superlink_release_payload() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
        IF NOT EXISTS (SELECT 1 FROM superlink_task WHERE payload_id = old.payload_id) THEN
            -- Locked, it gets no new task; but one may have been committed before.
            PERFORM 1 FROM superlink_payload WHERE payload_id = old.payload_id FOR UPDATE;
            DELETE FROM superlink_payload WHERE payload_id = old.payload_id AND NOT EXISTS
                (SELECT 1 FROM superlink_task WHERE payload_id = old.payload_id);
        END IF;
        RETURN NULL; END $$;
    CREATE TRIGGER superlink_release AFTER DELETE ON superlink_task FOR EACH ROW
        WHEN (old.payload_id IS NOT NULL) EXECUTE FUNCTION superlink_release_payload();
    CREATE TRIGGER superlink_release_closed AFTER UPDATE OF payload_id ON superlink_task
        FOR EACH ROW WHEN (old.payload_id IS NOT NULL AND new.payload_id IS NULL)
        EXECUTE FUNCTION superlink_release_payload();
"""

MIGRATIONS: Sequence[str] = (_TABLES + _STORAGE + _TOTALS + _TRIGGERS + messages.SCHEMA,)
"""Forward only: entry n leads from version n to n + 1. What was released never changes."""

_RECOUNT = f"""
    UPDATE superlink_subtotal SET nodes = 0, stored = 0;
    UPDATE superlink_subtotal SET nodes = (SELECT count(*) FROM node), stored =
        (SELECT coalesce(sum(size + coalesce(answer_size, 0)), 0) FROM superlink_task)
        + (SELECT coalesce(sum(length(content)), 0) FROM superlink_payload)
        + (SELECT coalesce(sum(length(content)), 0) FROM superlink_fab)
        + ({messages.STORED}) WHERE part = 0
"""


def version(connection: psycopg.Connection) -> int:
    """Give the version of the tables; 0 where there are none yet."""
    # Not by the search path: another schema on it may have tables of its own. And not by
    # to_regclass: a table that another process has just made it may not see yet.
    ours = (
        "SELECT 1 FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace"
        " WHERE relname = 'superlink_schema' AND nspname = current_schema()"
    )
    if connection.execute(ours).fetchone() is None:
        return 0
    found = connection.execute("SELECT version FROM superlink_schema").fetchone()
    return int(found[0]) if found else 0


def migrate(connection: psycopg.Connection) -> None:
    """Bring the tables up to date, inside the caller's transaction."""
    found = version(connection)
    if found == 0:
        connection.execute("CREATE TABLE superlink_schema(version INTEGER NOT NULL)")
        connection.execute("INSERT INTO superlink_schema VALUES (0)")
    for migration in MIGRATIONS[found:]:
        connection.execute(migration.encode())
    connection.execute("UPDATE superlink_schema SET version = %s", (len(MIGRATIONS),))


def recount(connection: psycopg.Connection) -> None:
    """Count anew what somebody may have changed by hand, inside the caller's transaction."""
    connection.execute(_RECOUNT)
