-- Everything Matins keeps, in its own schema. LangGraph's tables are in 0002.
--
-- The invariants are here and not in Python: one running run per thread, one row per due slot,
-- a running run has a node, a terminal run has none.

CREATE SCHEMA IF NOT EXISTS matins;

-- The one clock. A test database replaces this function.
CREATE FUNCTION matins.now() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT clock_timestamp()';

CREATE TABLE matins.assistant (
    assistant_id uuid PRIMARY KEY,
    owner        text NOT NULL DEFAULT '',
    graph_id     text NOT NULL,
    name         text NOT NULL,
    description  text,
    config       json NOT NULL DEFAULT '{}',
    context      json NOT NULL DEFAULT '{}',
    metadata     jsonb NOT NULL DEFAULT '{}',
    version      integer NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT matins.now(),
    updated_at   timestamptz NOT NULL DEFAULT matins.now()
);
CREATE INDEX assistant_metadata ON matins.assistant USING gin (metadata jsonb_path_ops);
CREATE INDEX assistant_graph ON matins.assistant (graph_id);

CREATE TABLE matins.assistant_version (
    assistant_id uuid NOT NULL REFERENCES matins.assistant ON DELETE CASCADE,
    version      integer NOT NULL,
    graph_id     text NOT NULL,
    name         text NOT NULL,
    description  text,
    config       json NOT NULL DEFAULT '{}',
    context      json NOT NULL DEFAULT '{}',
    metadata     jsonb NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT matins.now(),
    PRIMARY KEY (assistant_id, version)
);

CREATE TABLE matins.thread (
    thread_id        uuid PRIMARY KEY,
    owner            text NOT NULL DEFAULT '',
    metadata         jsonb NOT NULL DEFAULT '{}',
    config           json NOT NULL DEFAULT '{}',
    status           text NOT NULL DEFAULT 'idle' CHECK (status IN ('idle', 'busy', 'interrupted', 'error')),
    -- What `status` goes back to when what was in flight is gone without having written a state. The state does not
    -- tell: a thread that stopped at a breakpoint has no interrupts.
    resting_status   text NOT NULL DEFAULT 'idle' CHECK (resting_status IN ('idle', 'interrupted', 'error')),
    "values"         jsonb,
    interrupts       json,   -- NULL until the first run or state write
    error            json,
    event_seq        bigint NOT NULL DEFAULT 0,   -- the last stream sequence number a settled run used
    ttl_strategy     text CHECK (ttl_strategy IN ('delete', 'keep_latest')),
    ttl_minutes      double precision,
    expires_at       timestamptz,
    created_at       timestamptz NOT NULL DEFAULT matins.now(),
    updated_at       timestamptz NOT NULL DEFAULT matins.now(),
    state_updated_at timestamptz NOT NULL DEFAULT matins.now()
);
CREATE INDEX thread_metadata ON matins.thread USING gin (metadata jsonb_path_ops);
CREATE INDEX thread_updated ON matins.thread (updated_at DESC, thread_id);
CREATE INDEX thread_expires ON matins.thread (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE matins.node (
    node_id      uuid PRIMARY KEY,
    name         text NOT NULL,
    version      text NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT matins.now(),
    leased_since timestamptz NOT NULL DEFAULT matins.now(),   -- start of the present gap-free tenure
    lease_until  timestamptz NOT NULL
);

CREATE TABLE matins.run (
    run_id             uuid PRIMARY KEY,
    seq                bigint GENERATED ALWAYS AS IDENTITY,
    thread_id          uuid NOT NULL REFERENCES matins.thread ON DELETE CASCADE,
    assistant_id       uuid NOT NULL,   -- no foreign key: a run outlives its assistant
    cron_id            uuid,
    scheduled_for      timestamptz,
    parent_run_id      uuid,
    owner              text NOT NULL DEFAULT '',
    creator            json,            -- identity claims, never a token
    status             text NOT NULL DEFAULT 'pending'
                       CHECK (status IN ('pending', 'running', 'success', 'error', 'timeout', 'interrupted')),
    priority           smallint NOT NULL DEFAULT 0,   -- a person 0, a cron -1, a child of a running run +1
    attempt            integer NOT NULL DEFAULT 0,    -- the fence: +1 at every claim
    crashes            integer NOT NULL DEFAULT 0,    -- the charge: +1 when its process died under it
    node_id            uuid,
    stop               text CHECK (stop IN ('interrupt', 'rollback', 'timeout', 'drain')),
    stop_at            timestamptz,
    base_checkpoint_id text,            -- the thread's newest root checkpoint when this run first started
    last_checkpoint_id text,            -- the root checkpoint this run ended on
    multitask_strategy text NOT NULL DEFAULT 'enqueue'
                       CHECK (multitask_strategy IN ('reject', 'interrupt', 'rollback', 'enqueue')),
    metadata           jsonb NOT NULL DEFAULT '{}',
    kwargs             json NOT NULL,
    temporary          boolean NOT NULL DEFAULT false,   -- its thread goes when it ends
    due_at             timestamptz NOT NULL DEFAULT matins.now(),
    error              json,
    created_at         timestamptz NOT NULL DEFAULT matins.now(),
    updated_at         timestamptz NOT NULL DEFAULT matins.now(),
    started_at         timestamptz,
    ended_at           timestamptz,
    CONSTRAINT run_node_when_running CHECK ((status = 'running') = (node_id IS NOT NULL)),
    CONSTRAINT run_ended_when_terminal CHECK ((status IN ('pending', 'running')) = (ended_at IS NULL))
);
CREATE UNIQUE INDEX run_one_running_per_thread ON matins.run (thread_id) WHERE status = 'running';
CREATE INDEX run_queue_of_thread ON matins.run (thread_id, priority DESC, seq) WHERE status = 'pending';
CREATE INDEX run_queue ON matins.run (priority DESC, seq) WHERE status = 'pending';
CREATE INDEX run_queue_crashed ON matins.run (priority DESC, seq) WHERE status = 'pending' AND crashes > 0;
CREATE INDEX run_pending_due ON matins.run (due_at) WHERE status = 'pending';
-- A thread that a cron writes to for a year has half a million runs; what is in flight on it is found without them.
CREATE INDEX run_in_flight ON matins.run (thread_id, seq) WHERE status IN ('pending', 'running');
CREATE INDEX run_of_node ON matins.run (node_id) WHERE status = 'running';
CREATE INDEX run_stopping ON matins.run (stop_at) WHERE status = 'running' AND stop IS NOT NULL;
CREATE INDEX run_of_thread ON matins.run (thread_id, seq DESC);
CREATE INDEX run_metadata ON matins.run USING gin (metadata jsonb_path_ops);

CREATE TABLE matins.cron (
    cron_id          uuid PRIMARY KEY,
    assistant_id     uuid NOT NULL,   -- no foreign key: a deleted assistant pauses its crons, with a reason
    thread_id        uuid REFERENCES matins.thread ON DELETE CASCADE,
    owner            text NOT NULL DEFAULT '',
    creator          json,
    schedule         text NOT NULL,
    timezone         text,
    tzdata           text,            -- the time zone rules that next_run_date was computed with
    end_time         timestamptz,
    enabled          boolean NOT NULL DEFAULT true,
    paused_reason    text,
    next_run_date    timestamptz,
    revision         bigint NOT NULL DEFAULT 1,
    payload          json NOT NULL,
    policy           json,
    metadata         jsonb NOT NULL DEFAULT '{}',
    on_run_completed text CHECK (on_run_completed IN ('delete', 'keep')),
    created_at       timestamptz NOT NULL DEFAULT matins.now(),
    updated_at       timestamptz NOT NULL DEFAULT matins.now()
);
CREATE INDEX cron_due ON matins.cron (next_run_date) WHERE enabled AND next_run_date IS NOT NULL;
CREATE INDEX cron_of_thread ON matins.cron (thread_id) WHERE thread_id IS NOT NULL;
CREATE INDEX cron_of_assistant ON matins.cron (assistant_id);
CREATE INDEX cron_metadata ON matins.cron USING gin (metadata jsonb_path_ops);

-- One row per due slot, whatever became of it. Outlives the run, the thread and the cron.
CREATE TABLE matins.cron_fire (
    cron_id       uuid NOT NULL,
    scheduled_for timestamptz NOT NULL,
    owner         text NOT NULL DEFAULT '',
    outcome       text NOT NULL CHECK (outcome IN ('fired', 'missed', 'skipped', 'failed')),
    reason        text,
    trigger       text NOT NULL DEFAULT 'schedule' CHECK (trigger IN ('schedule', 'catch_up', 'manual', 'backfill')),
    run_id        uuid,
    thread_id     uuid,
    assistant_id  uuid,
    recorded_at   timestamptz NOT NULL DEFAULT matins.now(),
    PRIMARY KEY (cron_id, scheduled_for),
    CONSTRAINT cron_fire_run_when_fired CHECK ((outcome = 'fired') = (run_id IS NOT NULL))
);
CREATE UNIQUE INDEX cron_fire_run ON matins.cron_fire (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX cron_fire_recorded ON matins.cron_fire (recorded_at);

CREATE TABLE matins.stream_event (
    thread_id  uuid NOT NULL REFERENCES matins.thread ON DELETE CASCADE,
    seq        bigint NOT NULL,
    run_id     uuid NOT NULL,
    attempt    integer NOT NULL,
    event      text NOT NULL,
    data       json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT matins.now(),
    PRIMARY KEY (thread_id, seq)
);
CREATE INDEX stream_event_of_run ON matins.stream_event (run_id, seq);
CREATE INDEX stream_event_created ON matins.stream_event (created_at);

CREATE TABLE matins.webhook_delivery (
    delivery_id     uuid PRIMARY KEY,
    run_id          uuid NOT NULL,
    owner           text NOT NULL DEFAULT '',
    url             text NOT NULL,
    payload         json NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz DEFAULT matins.now(),
    delivered_at    timestamptz,
    dead_at         timestamptz,
    last_error      text,
    created_at      timestamptz NOT NULL DEFAULT matins.now()
);
CREATE INDEX webhook_delivery_due ON matins.webhook_delivery (next_attempt_at)
    WHERE delivered_at IS NULL AND dead_at IS NULL;

CREATE TABLE matins.idempotency_key (
    owner       text NOT NULL DEFAULT '',
    key         text NOT NULL,
    request     bytea NOT NULL,   -- digest of method, path and body
    response    json,
    created_at  timestamptz NOT NULL DEFAULT matins.now(),
    PRIMARY KEY (owner, key)
);

CREATE TABLE matins.api_key (
    key_id       text PRIMARY KEY,
    owner        text NOT NULL DEFAULT '',
    name         text NOT NULL,
    digest       bytea NOT NULL,
    scopes       text[] NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT matins.now(),
    revoked_at   timestamptz,
    last_used_at timestamptz
);
