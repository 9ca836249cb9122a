-- name: insert_thread :one
-- $1 thread_id, $2 owner, $3 metadata, $4 ttl_strategy, $5 ttl_minutes
INSERT INTO matins.thread (thread_id, owner, metadata, ttl_strategy, ttl_minutes, expires_at)
VALUES ($1, $2, $3, $4, $5, matins.now() + make_interval(secs => $5::double precision * 60))
ON CONFLICT (thread_id) DO NOTHING
RETURNING *;

-- name: get_thread :one
-- $1 thread_id, $2 owner or null
SELECT * FROM matins.thread WHERE thread_id = $1 AND ($2::text IS NULL OR owner = $2);

-- name: lock_thread :one
-- $1 thread_id, $2 owner or null. Whoever changes what runs on a thread holds its row first. NO KEY: rows that refer
-- to the thread, such as a stream's events, may be written meanwhile.
SELECT * FROM matins.thread WHERE thread_id = $1 AND ($2::text IS NULL OR owner = $2) FOR NO KEY UPDATE;

-- name: newest_checkpoint :one
-- $1 thread_id
SELECT max(checkpoint_id) AS checkpoint_id FROM checkpoints WHERE thread_id = $1::uuid::text AND checkpoint_ns = '';

-- name: resting_checkpoint :one
-- $1 thread_id. What the oldest run that has begun and not ended began from; without one, the newest root checkpoint.
SELECT CASE WHEN begun.run_id IS NOT NULL THEN begun.base_checkpoint_id ELSE
    (SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = $1::uuid::text AND checkpoint_ns = '')
END AS checkpoint_id
FROM (SELECT) AS always LEFT JOIN LATERAL (
    SELECT run_id, base_checkpoint_id FROM matins.run
    WHERE thread_id = $1 AND status IN ('pending', 'running') AND attempt > 0
    ORDER BY started_at LIMIT 1
) AS begun ON true;

-- name: search_threads :many
-- $1 owner or null, $2 ids or null, $3 values or null, $4 status or null, $5 limit, $6 offset,
-- $7 what to extract or null
SELECT *, matins.extracted($7, "values", metadata, config, interrupts) AS extracted
FROM matins.thread
WHERE ($1::text IS NULL OR owner = $1)
  AND ($2::uuid[] IS NULL OR thread_id = ANY($2))
  AND ($3::jsonb IS NULL OR "values" @> $3)
  AND ($4::text IS NULL OR status = $4)
ORDER BY {order}
LIMIT $5 OFFSET $6;

-- name: search_threads_by_metadata :many
-- $1-$7 as search_threads, $8 metadata. All that match are found first, by their index, and then sorted: left to
-- choose, the planner may go through a million threads in their order in search of the only one.
WITH matching AS MATERIALIZED (
    SELECT thread_id, status, created_at, updated_at, state_updated_at
    FROM matins.thread
    WHERE metadata @> $8
      AND ($1::text IS NULL OR owner = $1)
      AND ($2::uuid[] IS NULL OR thread_id = ANY($2))
      AND ($3::jsonb IS NULL OR "values" @> $3)
      AND ($4::text IS NULL OR status = $4)
)
SELECT t.*, matins.extracted($7, t."values", t.metadata, t.config, t.interrupts) AS extracted
FROM (SELECT thread_id FROM matching ORDER BY {order} LIMIT $5 OFFSET $6) AS page
JOIN matins.thread AS t USING (thread_id)
ORDER BY {order};

-- name: walk_threads :many
-- $1-$8 as search_threads_by_metadata, $9 how many of all threads to go through at most, in their order, until enough
-- are found.
SELECT *, matins.extracted($7, "values", metadata, config, interrupts) AS extracted
FROM (SELECT * FROM matins.thread ORDER BY {order} LIMIT $9) AS first
WHERE metadata @> $8
  AND ($1::text IS NULL OR owner = $1)
  AND ($2::uuid[] IS NULL OR thread_id = ANY($2))
  AND ($3::jsonb IS NULL OR "values" @> $3)
  AND ($4::text IS NULL OR status = $4)
ORDER BY {order}
LIMIT $5 OFFSET $6;

-- name: count_threads :one
-- $1 owner or null, $2 ids or null, $3 values or null, $4 status or null, $5 the most to count or null
SELECT count(*) FROM (
    SELECT 1 FROM matins.thread
    WHERE ($1::text IS NULL OR owner = $1)
      AND ($2::uuid[] IS NULL OR thread_id = ANY($2))
      AND ($3::jsonb IS NULL OR "values" @> $3)
      AND ($4::text IS NULL OR status = $4)
    LIMIT $5
) AS matching;

-- name: count_threads_by_metadata :one
-- $1-$5 as count_threads, $6 metadata
SELECT count(*) FROM (
    SELECT 1 FROM matins.thread
    WHERE metadata @> $6
      AND ($1::text IS NULL OR owner = $1)
      AND ($2::uuid[] IS NULL OR thread_id = ANY($2))
      AND ($3::jsonb IS NULL OR "values" @> $3)
      AND ($4::text IS NULL OR status = $4)
    LIMIT $5
) AS matching;

-- name: count_threads_tagged :one
-- $1 metadata of one key with a plain value, $2 the most to count or null. OFFSET 0: the few without tags are looked at,
-- not all that match.
SELECT count(*) FROM (
    SELECT 1 FROM matins.thread_tag WHERE tag = (SELECT matins.tags($1))
    UNION ALL
    SELECT 1 FROM (SELECT metadata FROM matins.thread WHERE NOT is_tagged OFFSET 0) AS fresh WHERE metadata @> $1
    LIMIT $2
) AS matching;

-- name: update_thread :one
-- $1 thread_id, $2 owner or null, $3 metadata to merge, $4 ttl_strategy or null, $5 ttl_minutes or null
UPDATE matins.thread
SET metadata = metadata || $3,
    ttl_strategy = coalesce($4, ttl_strategy),
    ttl_minutes = coalesce($5, ttl_minutes),
    updated_at = matins.now()
WHERE thread_id = $1 AND ($2::text IS NULL OR owner = $2)
RETURNING *;

-- name: occupy_thread :exec
-- $1 thread_id, $2 metadata to merge, $3 config to keep or null, $4 the priority if it has none. The caller holds the thread's row.
UPDATE matins.thread
SET status = 'busy', metadata = metadata || $2, config = coalesce($3, config),
    priority = coalesce(priority, $4::smallint), updated_at = matins.now()
WHERE thread_id = $1;

-- name: rest_thread :exec
-- $1 thread_id, $2 the last stream sequence number used. Gives a thread with nothing left in flight back the status of
-- its state. The caller holds its row.
UPDATE matins.thread AS t
SET status = CASE
        WHEN EXISTS (SELECT FROM matins.run AS r WHERE r.thread_id = t.thread_id
                     AND r.status IN ('pending', 'running')) THEN 'busy'
        ELSE t.resting_status END,
    event_seq = greatest(t.event_seq, $2),
    updated_at = matins.now()
WHERE thread_id = $1;

-- name: copy_thread :one
-- $1 thread_id, $2 owner or null, $3 the copy's id, $4 the copy's owner. What it is at rest: no run comes along. Its
-- time to live is the original's, from now on.
INSERT INTO matins.thread (thread_id, owner, metadata, config, status, resting_status, "values", interrupts, error,
                           ttl_strategy, ttl_minutes, expires_at, priority)
SELECT $3, $4, metadata, config, resting_status, resting_status, "values", interrupts, error,
       ttl_strategy, ttl_minutes, matins.now() + make_interval(secs => ttl_minutes * 60), priority
FROM matins.thread WHERE thread_id = $1 AND ($2::text IS NULL OR owner = $2)
ON CONFLICT (thread_id) DO NOTHING
RETURNING *;

-- name: delete_threads :many
-- $1 thread_ids, $2 owner or null
DELETE FROM matins.thread WHERE thread_id = ANY($1::uuid[]) AND ($2::text IS NULL OR owner = $2)
RETURNING thread_id;

-- name: delete_thread_checkpoints :exec
-- $1 thread_ids as text. LangGraph's tables have no foreign key to ours; deliveries have none because that of a
-- temporary run outlives its thread.
WITH blobs AS (DELETE FROM checkpoint_blobs WHERE thread_id = ANY($1::text[])),
     writes AS (DELETE FROM checkpoint_writes WHERE thread_id = ANY($1::text[])),
     deliveries AS (DELETE FROM matins.webhook_delivery WHERE thread_id = ANY($1::text[]::uuid[]))
DELETE FROM checkpoints WHERE thread_id = ANY($1::text[]);
