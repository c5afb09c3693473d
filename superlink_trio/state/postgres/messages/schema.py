"""The tables of Flower 1.23 and later in PostgreSQL: those of a file (see `sqlite.schema`).

What a tree misses is said by its parts, and no row of it counts that: processes that bring objects
of one tree write different rows. `superlink_loose` has what may have lost its last message, see
`objects`; `superlink_serving` the processes that serve these nodes. `superlink_app_run.heard_at`:
when one of them has heard of the run's process last.
"""

from __future__ import annotations

_TABLES = """
    CREATE TABLE superlink_supernode(
        node_id BIGINT PRIMARY KEY, public_key BYTEA NOT NULL UNIQUE,
        registered_at DOUBLE PRECISION NOT NULL, activated_at DOUBLE PRECISION,
        deactivated_at DOUBLE PRECISION, online_until DOUBLE PRECISION NOT NULL,
        heartbeat_interval DOUBLE PRECISION NOT NULL, registered_itself BOOLEAN NOT NULL,
        name TEXT NOT NULL, location TEXT NOT NULL);
    CREATE INDEX superlink_gives_way ON superlink_supernode(
        greatest(online_until, coalesce(deactivated_at, 0), registered_at))
        WHERE registered_itself;
    CREATE TABLE superlink_unregistered(
        number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, node_id BIGINT NOT NULL UNIQUE);

    CREATE TABLE superlink_app_run(
        number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run_id BIGINT NOT NULL UNIQUE,
        task_id BIGINT NOT NULL, series_id BIGINT NOT NULL, fab_id TEXT NOT NULL,
        fab_version TEXT NOT NULL, fab_hash TEXT NOT NULL, override_config TEXT NOT NULL,
        pending_at DOUBLE PRECISION NOT NULL, starting_at DOUBLE PRECISION NOT NULL,
        running_at DOUBLE PRECISION NOT NULL, finished_at DOUBLE PRECISION NOT NULL,
        status TEXT NOT NULL, outcome TEXT, details TEXT NOT NULL, simulation BYTEA,
        token BYTEA UNIQUE, log_size BIGINT NOT NULL DEFAULT 0,
        heard_at DOUBLE PRECISION NOT NULL DEFAULT 0);
    CREATE INDEX superlink_live_run ON superlink_app_run(number) WHERE status != 'finished';
    CREATE TABLE superlink_app_log(
        number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run_id BIGINT NOT NULL,
        logged_at DOUBLE PRECISION NOT NULL, content TEXT NOT NULL);
    CREATE INDEX superlink_logged ON superlink_app_log(run_id, logged_at);

    CREATE TABLE superlink_object(
        number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        object_id TEXT NOT NULL UNIQUE, content BYTEA);
    ALTER TABLE superlink_object ALTER COLUMN content SET STORAGE EXTERNAL;
    CREATE TABLE superlink_tree(
        tree_id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, digest BYTEA NOT NULL UNIQUE,
        heard_at DOUBLE PRECISION NOT NULL, content BYTEA NOT NULL);
    CREATE TABLE superlink_part(
        object BIGINT NOT NULL, tree_id BIGINT NOT NULL, missing BOOLEAN NOT NULL,
        PRIMARY KEY(object, tree_id));
    CREATE INDEX superlink_part_of ON superlink_part(tree_id);
    CREATE INDEX superlink_missing ON superlink_part(tree_id) WHERE missing;
    CREATE TABLE superlink_loose(
        number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tree_id BIGINT, object BIGINT);

    CREATE TABLE superlink_message(
        number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, message_id TEXT NOT NULL UNIQUE,
        run_id BIGINT NOT NULL, source BIGINT NOT NULL, reader BIGINT NOT NULL,
        phase INTEGER NOT NULL, expires_at DOUBLE PRECISION NOT NULL,
        heard_at DOUBLE PRECISION NOT NULL, asked BIGINT, reply BIGINT, root BIGINT,
        tree_id BIGINT, content BYTEA NOT NULL);
    CREATE INDEX superlink_message_run ON superlink_message(run_id);
    CREATE INDEX superlink_instruction ON superlink_message(reader, phase, number)
        WHERE asked IS NULL;
    CREATE INDEX superlink_instruction_expires ON superlink_message(expires_at)
        WHERE asked IS NULL;
    CREATE INDEX superlink_message_root ON superlink_message(root) WHERE root IS NOT NULL;
    CREATE INDEX superlink_message_tree ON superlink_message(tree_id, phase, reader)
        WHERE tree_id IS NOT NULL;
    CREATE INDEX superlink_arriving ON superlink_message(heard_at) WHERE phase = 0;
    CREATE INDEX superlink_dropped ON superlink_message(number) WHERE phase = 4;

    CREATE TABLE superlink_serving(
        process_id INTEGER PRIMARY KEY REFERENCES superlink_process ON DELETE CASCADE);
"""

_TRIGGERS = """
    CREATE FUNCTION superlink_count_object() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
        PERFORM superlink_count('stored', CASE TG_OP
            WHEN 'UPDATE' THEN length(new.content) ELSE -length(old.content) END);
        RETURN NULL; END $$;
    CREATE TRIGGER superlink_count AFTER UPDATE OF content ON superlink_object FOR EACH ROW
        WHEN (old.content IS NULL AND new.content IS NOT NULL)
        EXECUTE FUNCTION superlink_count_object();
    CREATE TRIGGER superlink_discount AFTER DELETE ON superlink_object FOR EACH ROW
        WHEN (old.content IS NOT NULL) EXECUTE FUNCTION superlink_count_object();
"""

SCHEMA = _TABLES + _TRIGGERS
"""What makes them, after those of Flower 1.8 to 1.11."""

STORED = "SELECT coalesce(sum(length(content)), 0) FROM superlink_object"
"""The bytes of what messages say."""
