-- name: take_crons :many
-- $1 cron_ids, $2 expected next_run_dates, $3 expected revisions. Those still as expected, locked; what another node
-- holds is skipped: it is being fired. `hold`: why all crons of the server are held, if they are.
SELECT c.cron_id, c.thread_id, matins.now() AS now, (SELECT reason FROM matins.cron_hold) AS hold
FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[]) AS planned (cron_id, expected, revision)
JOIN matins.cron AS c ON c.cron_id = planned.cron_id
WHERE c.enabled AND c.next_run_date = planned.expected AND c.revision = planned.revision
  AND c.due_at <= matins.now()
ORDER BY c.cron_id
FOR UPDATE OF c SKIP LOCKED;

-- name: take_threads :many
-- $1 thread_ids. One that somebody holds is skipped: firing waits for nobody. `asked_at`: since when it waits for an
-- answer, if it does.
SELECT thread_id, CASE WHEN status = 'interrupted' AND interrupts::text <> '{}' THEN state_updated_at END AS asked_at
FROM matins.thread WHERE thread_id = ANY($1::uuid[]) FOR NO KEY UPDATE SKIP LOCKED;

-- name: advance_crons :exec
-- $1 cron_ids, $2 following dates or null where none follows, $3 when they are due, $4 whether the cron is done,
-- $5 what is said of one that is. The caller holds the rows.
UPDATE matins.cron AS c
SET next_run_date = planned.following, due_at = planned.due_at, enabled = c.enabled AND NOT planned.is_done,
    done_at = CASE WHEN planned.is_done THEN matins.now() END,
    updated_at = CASE WHEN planned.is_done THEN matins.now() ELSE c.updated_at END,
    paused_reason = CASE WHEN planned.is_done AND c.enabled THEN $5 ELSE c.paused_reason END
FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::boolean[])
  AS planned (cron_id, following, due_at, is_done)
WHERE c.cron_id = planned.cron_id;

-- name: fires_on_record :many
-- $1 cron_ids, $2 slots
SELECT cron_id, scheduled_for
FROM unnest($1::uuid[], $2::timestamptz[]) AS planned (cron_id, scheduled_for)
JOIN matins.cron_fire USING (cron_id, scheduled_for);

-- name: insert_posting :exec
-- $1 run_id, $2 thread_id, $3 assistant_id, $4 metadata, $5 kwargs, $6 creator, $7 what follows from the priority of 1.
-- With the priority of a cron's run.
INSERT INTO matins.run (run_id, thread_id, assistant_id, owner, metadata, kwargs, creator, priority)
SELECT $1, t.thread_id, $3, t.owner, $4, $5, $6, coalesce(t.priority, 0) * $7 - 1
FROM matins.thread AS t WHERE t.thread_id = $2;

-- name: occupy_fired_threads :many
-- $1 thread_ids, $2 metadata to merge, $3 configs, $4 priorities for those without. The caller holds the rows.
UPDATE matins.thread AS t
SET status = 'busy', metadata = t.metadata || o.metadata, config = o.config,
    priority = coalesce(t.priority, o.priority), updated_at = matins.now()
FROM unnest($1::uuid[], $2::jsonb[], $3::json[], $4::smallint[]) AS o (thread_id, metadata, config, priority)
WHERE t.thread_id = o.thread_id
RETURNING t.thread_id, t.priority;

-- name: start_fire :exec
-- $1 cron_id, $2 slot, $3 run_id, $4 thread_id, $5 assistant_id. The caller holds the row.
UPDATE matins.cron_fire
SET outcome = 'fired', reason = NULL, status = 'pending', run_id = $3, thread_id = $4, assistant_id = $5,
    recorded_at = matins.now()
WHERE cron_id = $1 AND scheduled_for = $2 AND outcome = 'waiting';
