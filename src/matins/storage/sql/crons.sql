-- name: insert_cron :one
-- $1 cron_id, $2 assistant_id, $3 thread_id or null, $4 owner, $5 creator, $6 schedule, $7 timezone, $8 tzdata,
-- $9 end_time, $10 enabled, $11 next_run_date, $12 payload, $13 metadata, $14 on_run_completed, $15 priority or null,
-- $16 policy or null, $17 due_at, $18 key or null, $19 declared or null
INSERT INTO matins.cron (cron_id, assistant_id, thread_id, owner, creator, schedule, timezone, tzdata, end_time,
                         enabled, next_run_date, payload, metadata, on_run_completed, priority, policy,
                         due_at, key, declared)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
ON CONFLICT (cron_id) DO NOTHING
RETURNING *;

-- name: get_cron :one
-- $1 cron_id, $2 owner or null
SELECT * FROM matins.cron WHERE cron_id = $1 AND ($2::text IS NULL OR owner = $2);

-- name: lock_cron :one
-- $1 cron_id, $2 owner or null
SELECT * FROM matins.cron WHERE cron_id = $1 AND ($2::text IS NULL OR owner = $2) FOR UPDATE;

-- name: search_crons :many
-- $1 owner or null, $2 assistant_id or null, $3 thread_id or null, $4 enabled or null, $5 metadata or null, $6 limit,
-- $7 offset
SELECT * FROM matins.cron
WHERE ($1::text IS NULL OR owner = $1)
  AND ($2::uuid IS NULL OR assistant_id = $2)
  AND ($3::uuid IS NULL OR thread_id = $3)
  AND ($4::boolean IS NULL OR enabled = $4)
  AND ($5::jsonb IS NULL OR metadata @> $5)
ORDER BY {order}
LIMIT $6 OFFSET $7;

-- name: count_crons :one
-- $1 owner or null, $2 assistant_id or null, $3 thread_id or null, $4 enabled or null, $5 metadata or null,
-- $6 the most to count or null
SELECT count(*) FROM (
    SELECT 1 FROM matins.cron
    WHERE ($1::text IS NULL OR owner = $1)
      AND ($2::uuid IS NULL OR assistant_id = $2)
      AND ($3::uuid IS NULL OR thread_id = $3)
      AND ($4::boolean IS NULL OR enabled = $4)
      AND ($5::jsonb IS NULL OR metadata @> $5)
    LIMIT $6
) AS matching;

-- name: update_cron :one
-- $1 cron_id, $2 schedule, $3 timezone, $4 tzdata, $5 end_time, $6 enabled, $7 next_run_date, $8 payload,
-- $9 metadata, $10 on_run_completed, $11 policy or null, $12 due_at, $13 assistant_id, $14 thread_id or null. The
-- caller holds the row; every edit is a new revision, so that a fire that was computed for the old one writes nothing.
-- Switching on forgets why it was paused, a new date that it was done.
UPDATE matins.cron
SET schedule = $2, timezone = $3, tzdata = $4, end_time = $5, enabled = $6, next_run_date = $7, payload = $8,
    metadata = $9, on_run_completed = $10, policy = $11, due_at = $12, assistant_id = $13, thread_id = $14,
    revision = revision + 1, updated_at = matins.now(),
    done_at = CASE WHEN NOT $6 AND $7::timestamptz IS NULL THEN done_at END,
    paused_reason = CASE WHEN $6 OR (done_at IS NOT NULL AND $7 IS NOT NULL) THEN NULL ELSE paused_reason END
WHERE cron_id = $1
RETURNING *;

-- name: lock_keys :one
-- What the project declares is made so by one node at a time.
SELECT pg_advisory_xact_lock(hashtextextended('matins.declared crons', 0));

-- name: get_cron_by_key :one
-- $1 key
SELECT * FROM matins.cron WHERE key = $1;

-- name: declared_crons :many
SELECT * FROM matins.cron WHERE declared IS NOT NULL ORDER BY key;

-- name: declare_cron :exec
-- $1 cron_id, $2 declaration or null
UPDATE matins.cron SET declared = $2 WHERE cron_id = $1;

-- name: lock_owner :one
-- $1 owner. Who counts the crons of one owner does so after the other.
SELECT pg_advisory_xact_lock(hashtextextended('matins.crons of ' || $1, 0));

-- name: delete_cron :one
-- $1 cron_id, $2 owner or null
DELETE FROM matins.cron WHERE cron_id = $1 AND ($2::text IS NULL OR owner = $2) RETURNING cron_id;

-- name: purge_done_crons :many
-- $1 done for this many seconds, $2 limit. Their ledger stays; and so does one as long as it is declared.
DELETE FROM matins.cron WHERE cron_id IN (
    SELECT c.cron_id FROM matins.cron AS c
    WHERE c.done_at < matins.now() - make_interval(secs => $1::double precision) AND c.declared IS NULL
      AND NOT EXISTS (SELECT FROM matins.cron_fire AS f WHERE f.cron_id = c.cron_id AND f.outcome = 'waiting')
    LIMIT $2
)
RETURNING cron_id;

-- name: pause_cron :one
-- $1 cron_id, $2 the revision that is to be paused, $3 reason. Whether it was on.
WITH before AS (SELECT enabled FROM matins.cron WHERE cron_id = $1 AND revision = $2)
UPDATE matins.cron
SET enabled = false, paused_reason = $3, revision = revision + 1, updated_at = matins.now()
WHERE cron_id = $1 AND revision = $2
RETURNING (SELECT enabled FROM before) AS was_on;

-- name: pause_crons_of_assistant :exec
-- $1 assistant_id, $2 reason
UPDATE matins.cron
SET enabled = false, paused_reason = $2, revision = revision + 1, updated_at = matins.now()
WHERE assistant_id = $1 AND enabled;

-- name: hold_crons :one
-- $1 reason. Those that are held already are from then on, for this reason.
INSERT INTO matins.cron_hold (reason) VALUES ($1)
ON CONFLICT (only_one) DO UPDATE SET reason = excluded.reason
RETURNING reason, since;

-- name: let_crons_go :exec
DELETE FROM matins.cron_hold;

-- name: get_hold :one
SELECT reason, since FROM matins.cron_hold;

-- name: due_crons :many
-- $1 later than this or null, $2 until, $3 limit. No lock, no write: a look. The times are parameters, and not
-- matins.now(), so that the index bounds them.
SELECT cron_id, revision, next_run_date, due_at FROM matins.cron
WHERE enabled AND due_at > coalesce($1::timestamptz, '-infinity') AND due_at <= $2
ORDER BY due_at, cron_id
LIMIT $3;

-- name: get_crons :many
-- $1 cron_ids
SELECT c.* FROM unnest($1::uuid[]) WITH ORDINALITY AS wanted (cron_id, place)
JOIN matins.cron AS c USING (cron_id)
ORDER BY place;

-- name: next_due :one
-- The database's clock, and when the next cron is due.
SELECT matins.now() AS now, (SELECT min(due_at) FROM matins.cron WHERE enabled) AS due_at;

-- name: stale_zones :many
-- $1 the present tzdata version. Crons in a time zone whose next date was computed with other rules.
SELECT * FROM matins.cron
WHERE enabled AND due_at > matins.now() AND timezone IS NOT NULL AND tzdata IS DISTINCT FROM $1
ORDER BY due_at
LIMIT 500;
