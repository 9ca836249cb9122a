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

-- name: search_threads :many
-- $1 owner or null, $2 ids or null, $3 metadata or null, $4 values or null, $5 status or null, $6 limit, $7 offset
SELECT * FROM matins.thread
WHERE ($1::text IS NULL OR owner = $1)
  AND ($2::uuid[] IS NULL OR thread_id = ANY($2))
  AND ($3::jsonb IS NULL OR metadata @> $3)
  AND ($4::jsonb IS NULL OR "values" @> $4)
  AND ($5::text IS NULL OR status = $5)
ORDER BY {order}
LIMIT $6 OFFSET $7;

-- name: count_threads :one
-- $1 owner or null, $2 ids or null, $3 metadata or null, $4 values or null, $5 status or null,
-- $6 the most to count or null
SELECT count(*) FROM (
    SELECT 1 FROM matins.thread
    WHERE ($1::text IS NULL OR owner = $1)
      AND ($2::uuid[] IS NULL OR thread_id = ANY($2))
      AND ($3::jsonb IS NULL OR metadata @> $3)
      AND ($4::jsonb IS NULL OR "values" @> $4)
      AND ($5::text IS NULL OR status = $5)
    LIMIT $6
) AS matching;

-- name: update_thread :one
-- $1 thread_id, $2 owner or null, $3 metadata to merge, $4 ttl_strategy or null, $5 ttl_minutes or null
UPDATE matins.thread
SET metadata = metadata || $3,
    ttl_strategy = coalesce($4, ttl_strategy),
    ttl_minutes = coalesce($5, ttl_minutes),
    expires_at = CASE WHEN $5::double precision IS NULL THEN expires_at
                      ELSE matins.now() + make_interval(secs => $5 * 60) END,
    updated_at = matins.now()
WHERE thread_id = $1 AND ($2::text IS NULL OR owner = $2)
RETURNING *;

-- name: occupy_thread :exec
-- $1 thread_id, $2 metadata to merge, $3 config to keep or null. The caller holds the thread's row.
UPDATE matins.thread
SET status = 'busy', metadata = metadata || $2, config = coalesce($3, config), updated_at = matins.now()
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
-- $1 thread_id, $2 owner or null, $3 the copy's id, $4 the copy's owner. What it is at rest: no run comes along.
INSERT INTO matins.thread (thread_id, owner, metadata, config, status, resting_status, "values", interrupts, error)
SELECT $3, $4, metadata, config, resting_status, resting_status, "values", interrupts, error
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
