-- name: insert_cron :one
-- $1 cron_id, $2 assistant_id, $3 thread_id or null, $4 owner, $5 creator, $6 schedule, $7 timezone, $8 tzdata,
-- $9 end_time, $10 enabled, $11 next_run_date, $12 payload, $13 metadata, $14 on_run_completed, $15 priority or null
INSERT INTO matins.cron (cron_id, assistant_id, thread_id, owner, creator, schedule, timezone, tzdata, end_time,
                         enabled, next_run_date, payload, metadata, on_run_completed, priority)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
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
-- $9 metadata, $10 on_run_completed. The caller holds the row; every edit is a new revision, so that a fire that was
-- computed for the old one writes nothing. Switching on forgets why it was paused.
UPDATE matins.cron
SET schedule = $2, timezone = $3, tzdata = $4, end_time = $5, enabled = $6, next_run_date = $7, payload = $8,
    metadata = $9, on_run_completed = $10, revision = revision + 1, updated_at = matins.now(),
    paused_reason = CASE WHEN $6 THEN NULL ELSE paused_reason END
WHERE cron_id = $1
RETURNING *;

-- name: delete_cron :one
-- $1 cron_id, $2 owner or null
DELETE FROM matins.cron WHERE cron_id = $1 AND ($2::text IS NULL OR owner = $2) RETURNING cron_id;

-- name: pause_cron :exec
-- $1 cron_id, $2 the revision that could not be fired, $3 reason
UPDATE matins.cron
SET enabled = false, paused_reason = $3, revision = revision + 1, updated_at = matins.now()
WHERE cron_id = $1 AND revision = $2;

-- name: pause_crons_of_assistant :exec
-- $1 assistant_id, $2 reason
UPDATE matins.cron
SET enabled = false, paused_reason = $2, revision = revision + 1, updated_at = matins.now()
WHERE assistant_id = $1 AND enabled;

-- name: due_crons :many
-- $1 later than this or null, $2 until, $3 limit. No lock, no write: a look. The times are parameters, and not
-- matins.now(), so that the index bounds them.
SELECT * FROM matins.cron
WHERE enabled AND next_run_date > coalesce($1::timestamptz, '-infinity') AND next_run_date <= $2
ORDER BY next_run_date
LIMIT $3;

-- name: next_due :one
-- The database's clock, and when the next cron is due.
SELECT matins.now() AS now, (SELECT min(next_run_date) FROM matins.cron WHERE enabled) AS next_run_date;

-- name: stale_zones :many
-- $1 the present tzdata version. Crons in a time zone whose next date was computed with other rules.
SELECT * FROM matins.cron
WHERE enabled AND next_run_date > matins.now() AND timezone IS NOT NULL AND tzdata IS DISTINCT FROM $1
ORDER BY next_run_date
LIMIT 500;

-- name: take_crons :many
-- $1 cron_ids, $2 expected next_run_dates, $3 expected revisions. Those still as expected, locked; what another node
-- holds is skipped: it is being fired.
SELECT c.cron_id, c.thread_id, matins.now() AS now
FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[]) AS planned (cron_id, expected, revision)
JOIN matins.cron AS c ON c.cron_id = planned.cron_id
WHERE c.enabled AND c.next_run_date = planned.expected AND c.revision = planned.revision
  AND c.next_run_date <= matins.now()
ORDER BY c.cron_id
FOR UPDATE OF c SKIP LOCKED;

-- name: take_threads :many
-- $1 thread_ids. One that somebody holds is skipped: firing waits for nobody.
SELECT thread_id FROM matins.thread WHERE thread_id = ANY($1::uuid[]) FOR NO KEY UPDATE SKIP LOCKED;

-- name: advance_crons :exec
-- $1 cron_ids, $2 following dates or null where none follows. The caller holds the rows.
UPDATE matins.cron AS c
SET next_run_date = planned.following
FROM unnest($1::uuid[], $2::timestamptz[]) AS planned (cron_id, following)
WHERE c.cron_id = planned.cron_id;

-- name: insert_fires :many
-- $1 cron_ids, $2 slots, $3 outcomes, $4 reasons, $5 triggers, $6 run_ids, $7 thread_ids, $8 assistant_ids, $9 owners.
-- A slot that has a row already gets no second one.
INSERT INTO matins.cron_fire (cron_id, scheduled_for, outcome, reason, trigger, run_id, thread_id, assistant_id, owner)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::uuid[],
                     $8::uuid[], $9::text[])
ON CONFLICT DO NOTHING
RETURNING cron_id, scheduled_for;

-- name: insert_fired_threads :exec
-- $1 thread_ids, $2 owners, $3 metadata, $4 configs, $5 priorities. The threads of crons without one.
INSERT INTO matins.thread (thread_id, owner, metadata, config, status, priority)
SELECT thread_id, owner, metadata, config, 'busy', priority
FROM unnest($1::uuid[], $2::text[], $3::jsonb[], $4::json[], $5::smallint[])
  AS t (thread_id, owner, metadata, config, priority);

-- name: insert_fired_runs :exec
-- $1 run_ids, $2 thread_ids, $3 assistant_ids, $4 owners, $5 creators, $6 cron_ids, $7 slots, $8 metadata, $9 kwargs,
-- $10 multitask strategies, $11 temporary, $12 what follows from the priority of 1. A cron's run gives way to a
-- person's on threads with the same priority.
INSERT INTO matins.run (run_id, thread_id, assistant_id, owner, creator, cron_id, scheduled_for, metadata, kwargs,
                        multitask_strategy, temporary, priority)
SELECT r.run_id, r.thread_id, r.assistant_id, r.owner, r.creator, r.cron_id, r.scheduled_for, r.metadata, r.kwargs,
       r.multitask_strategy, r.temporary, coalesce(t.priority, 0) * $12 - 1
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::json[], $6::uuid[], $7::timestamptz[], $8::jsonb[],
            $9::json[], $10::text[], $11::boolean[]) WITH ORDINALITY
  AS r (run_id, thread_id, assistant_id, owner, creator, cron_id, scheduled_for, metadata, kwargs,
        multitask_strategy, temporary, place)
JOIN matins.thread AS t USING (thread_id)
ORDER BY place;   -- runs of a thread stay in the order of their slots

-- name: occupy_fired_threads :exec
-- $1 thread_ids, $2 metadata to merge, $3 configs, $4 priorities for those without. The caller holds the rows.
UPDATE matins.thread AS t
SET status = 'busy', metadata = t.metadata || o.metadata, config = o.config,
    priority = coalesce(t.priority, o.priority), updated_at = matins.now()
FROM unnest($1::uuid[], $2::jsonb[], $3::json[], $4::smallint[]) AS o (thread_id, metadata, config, priority)
WHERE t.thread_id = o.thread_id;
