-- The tables of LangGraph's Postgres checkpointer and store, where and as those libraries make them, so that a
-- database they wrote opens as it is and workers never race to create them. A test compares the result with what
-- the libraries' own set-up gives; store_vectors comes with an index configuration and is the store's to create.

-- "Where": on the search path as it is without our schema. A role that is called matins has that schema first, and
-- tables made there would hide those that LangGraph made before. Until the end of this transaction.
SELECT set_config('search_path', coalesce(string_agg(quote_ident(name), ', ' ORDER BY place), 'public'), true)
FROM unnest(current_schemas(false)) WITH ORDINALITY AS path (name, place) WHERE name <> 'matins';

CREATE TABLE IF NOT EXISTS checkpoint_migrations (v integer PRIMARY KEY);
CREATE TABLE IF NOT EXISTS checkpoints (
    thread_id            text NOT NULL,
    checkpoint_ns        text NOT NULL DEFAULT '',
    checkpoint_id        text NOT NULL,
    parent_checkpoint_id text,
    type                 text,
    checkpoint           jsonb NOT NULL,
    metadata             jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id)
);
CREATE TABLE IF NOT EXISTS checkpoint_blobs (
    thread_id     text NOT NULL,
    checkpoint_ns text NOT NULL DEFAULT '',
    channel       text NOT NULL,
    version       text NOT NULL,
    type          text NOT NULL,
    blob          bytea,
    PRIMARY KEY (thread_id, checkpoint_ns, channel, version)
);
ALTER TABLE checkpoint_blobs ALTER COLUMN blob DROP NOT NULL;
CREATE TABLE IF NOT EXISTS checkpoint_writes (
    thread_id     text NOT NULL,
    checkpoint_ns text NOT NULL DEFAULT '',
    checkpoint_id text NOT NULL,
    task_id       text NOT NULL,
    idx           integer NOT NULL,
    channel       text NOT NULL,
    type          text,
    blob          bytea NOT NULL,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
);
ALTER TABLE checkpoint_writes ADD COLUMN IF NOT EXISTS task_path text NOT NULL DEFAULT '';
CREATE INDEX IF NOT EXISTS checkpoints_thread_id_idx ON checkpoints (thread_id);
CREATE INDEX IF NOT EXISTS checkpoint_blobs_thread_id_idx ON checkpoint_blobs (thread_id);
CREATE INDEX IF NOT EXISTS checkpoint_writes_thread_id_idx ON checkpoint_writes (thread_id);
INSERT INTO checkpoint_migrations (v) SELECT generate_series(0, 9) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS store_migrations (v integer PRIMARY KEY);
CREATE TABLE IF NOT EXISTS store (
    prefix      text NOT NULL,
    key         text NOT NULL,
    value       jsonb NOT NULL,
    created_at  timestamptz DEFAULT CURRENT_TIMESTAMP,
    updated_at  timestamptz DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (prefix, key)
);
ALTER TABLE store ADD COLUMN IF NOT EXISTS expires_at timestamptz, ADD COLUMN IF NOT EXISTS ttl_minutes integer;
CREATE INDEX IF NOT EXISTS store_prefix_idx ON store USING btree (prefix text_pattern_ops);
CREATE INDEX IF NOT EXISTS idx_store_expires_at ON store (expires_at) WHERE expires_at IS NOT NULL;
INSERT INTO store_migrations (v) SELECT generate_series(0, 3) ON CONFLICT DO NOTHING;
