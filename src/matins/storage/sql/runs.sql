-- name: runs_in_flight :many
-- $1 thread_id. A statement of its own after the thread's row is locked: an older snapshot would miss a run.
SELECT run_id, status FROM matins.run WHERE thread_id = $1 AND status IN ('pending', 'running') ORDER BY seq;

-- name: busy_threads :many
-- $1 thread_ids. Those with a run in flight; in a statement of its own, as runs_in_flight.
SELECT DISTINCT thread_id FROM matins.run WHERE thread_id = ANY($1::uuid[]) AND status IN ('pending', 'running');

-- name: insert_run :one
-- $1 run_id, $2 thread_id, $3 assistant_id, $4 owner, $5 metadata, $6 kwargs, $7 multitask_strategy, $8 temporary,
-- $9 after_seconds, $10 priority, $11 cron_id, $12 scheduled_for, $13 creator, $14 the node that claims it or null,
-- $15 nodes on which its events are followed, $16 nodes on which its reply is awaited, $17 parent_run_id
INSERT INTO matins.run AS r (run_id, thread_id, assistant_id, owner, metadata, kwargs, multitask_strategy, temporary,
                        due_at, priority, cron_id, scheduled_for, creator, followed_on, awaited_on, parent_run_id,
                        node_id, status, attempt, started_at, base_checkpoint_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8,
        matins.now() + make_interval(secs => $9::double precision), $10, $11, $12, $13,
        $15, $16, $17,
        $14::uuid,
        CASE WHEN $14::uuid IS NULL THEN 'pending' ELSE 'running' END,
        CASE WHEN $14::uuid IS NULL THEN 0 ELSE 1 END,
        CASE WHEN $14::uuid IS NULL THEN NULL ELSE matins.now() END,
        CASE WHEN $14::uuid IS NULL THEN NULL ELSE
            (SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = $2::uuid::text AND checkpoint_ns = '') END)
RETURNING r.*, NOT r.followed_on <@ ARRAY[r.node_id] OR EXISTS (
    SELECT FROM matins.thread AS t WHERE t.thread_id = r.thread_id AND t.followed_until > matins.now()
) AS is_followed;

-- name: get_run :one
-- $1 run_id, $2 thread_id or null, $3 owner or null
SELECT * FROM matins.run
WHERE run_id = $1 AND ($2::uuid IS NULL OR thread_id = $2) AND ($3::text IS NULL OR owner = $3);

-- name: list_runs :many
-- $1 thread_id, $2 owner or null, $3 status or null, $4 limit, $5 offset
SELECT * FROM matins.run
WHERE thread_id = $1 AND ($2::text IS NULL OR owner = $2) AND ($3::text IS NULL OR status = $3)
ORDER BY seq DESC
LIMIT $4 OFFSET $5;

-- name: search_runs :many
-- $1 owner or null, $2 metadata or null, $3 status or null, $4 thread_id or null, $5 assistant_id or null, $6 limit,
-- $7 offset. Of all threads, the newest first.
SELECT * FROM matins.run
WHERE ($1::text IS NULL OR owner = $1)
  AND ($2::jsonb IS NULL OR metadata @> $2)
  AND ($3::text IS NULL OR status = $3)
  AND ($4::uuid IS NULL OR thread_id = $4)
  AND ($5::uuid IS NULL OR assistant_id = $5)
ORDER BY seq DESC
LIMIT $6 OFFSET $7;

-- name: count_runs :one
-- $1-$5 as search_runs, $6 the most to count or null
SELECT count(*) FROM (
    SELECT 1 FROM matins.run
    WHERE ($1::text IS NULL OR owner = $1)
      AND ($2::jsonb IS NULL OR metadata @> $2)
      AND ($3::text IS NULL OR status = $3)
      AND ($4::uuid IS NULL OR thread_id = $4)
      AND ($5::uuid IS NULL OR assistant_id = $5)
    LIMIT $6
) AS matching;

-- name: list_runs_in :many
-- $1 statuses, $2 owner or null, $3 later than this seq, $4 limit. Of those in flight; the oldest first.
SELECT run_id, thread_id, seq FROM matins.run
WHERE status IN ('pending', 'running') AND status = ANY($1::text[]) AND ($2::text IS NULL OR owner = $2) AND seq > $3
ORDER BY seq
LIMIT $4;

-- name: delete_run :one
-- $1 run_id, $2 thread_id, $3 owner or null
DELETE FROM matins.run WHERE run_id = $1 AND thread_id = $2 AND ($3::text IS NULL OR owner = $3)
RETURNING run_id, status;

-- name: lock_pending_run :one
-- $1 run_id. The caller holds the thread's row.
SELECT thread_id, attempt, stop FROM matins.run WHERE run_id = $1 AND status = 'pending' FOR UPDATE;

-- name: cancel_pending_run :one
-- $1 run_id. The caller holds its row.
UPDATE matins.run SET status = 'interrupted', stop = NULL, stop_at = NULL, ended_at = matins.now(),
    updated_at = matins.now()
WHERE run_id = $1 AND status = 'pending'
RETURNING *;

-- name: ask_to_stop :one
-- $1 run_id, $2 stop. Its worker confirms; the wire status stays `running` until then. To undo it outdoes all else.
UPDATE matins.run
SET stop = CASE WHEN $2::text = 'rollback' THEN $2 ELSE coalesce(stop, $2) END,
    stop_at = coalesce(stop_at, matins.now()), updated_at = matins.now()
WHERE run_id = $1 AND status = 'running'
RETURNING run_id;

-- name: lock_run_to_undo :one
-- $1 run_id, $2 attempt. The caller holds the thread's row. No row: the lease is lost, or nobody wants it undone.
SELECT run.*, NOT followed_on <@ ARRAY[node_id] OR EXISTS (
    SELECT FROM matins.thread AS t WHERE t.thread_id = run.thread_id AND t.followed_until > matins.now()
) AS is_followed
FROM matins.run
WHERE run_id = $1 AND attempt = $2 AND status = 'running' AND stop = 'rollback'
FOR UPDATE OF run;

-- name: lock_run_to_skip :one
-- $1 run_id, $2 attempt. The caller holds the thread's row. `is_alone`: its thread was made for it, and
-- nothing else is there.
SELECT run.*, NOT followed_on <@ ARRAY[node_id] OR EXISTS (
    SELECT FROM matins.thread AS t WHERE t.thread_id = run.thread_id AND t.followed_until > matins.now()
) AS is_followed, temporary OR (
    EXISTS (SELECT FROM matins.cron AS c WHERE c.cron_id = run.cron_id AND c.thread_id IS DISTINCT FROM run.thread_id)
    AND NOT EXISTS (SELECT FROM matins.run AS other
                    WHERE other.thread_id = run.thread_id AND other.run_id <> run.run_id)
) AS is_alone
FROM matins.run
WHERE run_id = $1 AND attempt = $2 AND status = 'running'
FOR UPDATE OF run;

-- name: delete_undone_run :exec
-- $1 run_id. The caller holds its row.
DELETE FROM matins.run WHERE run_id = $1;
