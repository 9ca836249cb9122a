-- name: find_heads :many
-- $1 limit, $2 the least priority or null. The due heads of the queues of threads where nothing runs: the first of a
-- thread by priority, then by age, even when it is not yet due. Without those under which a process died. No lock:
-- claim_runs decides again.
SELECT r.thread_id, r.crashes
FROM matins.run AS r
WHERE r.status = 'pending'
  AND r.crashes = 0
  AND r.priority >= coalesce($2, -32768)
  AND r.due_at <= matins.now()
  AND NOT EXISTS (SELECT FROM matins.run AS b WHERE b.thread_id = r.thread_id AND b.status = 'running')
  AND r.run_id = (SELECT h.run_id FROM matins.run AS h
                  WHERE h.thread_id = r.thread_id AND h.status = 'pending'
                  ORDER BY h.priority DESC, h.seq LIMIT 1)
ORDER BY r.priority DESC, r.seq
LIMIT $1;

-- name: find_crashed_heads :many
-- $1 limit, $2 the least priority or null. As find_heads, of those under which a process died: few, so
-- they have an index and a query of their own.
SELECT r.thread_id, r.crashes
FROM matins.run AS r
WHERE r.status = 'pending'
  AND r.crashes > 0
  AND r.priority >= coalesce($2, -32768)
  AND r.due_at <= matins.now()
  AND NOT EXISTS (SELECT FROM matins.run AS b WHERE b.thread_id = r.thread_id AND b.status = 'running')
  AND r.run_id = (SELECT h.run_id FROM matins.run AS h
                  WHERE h.thread_id = r.thread_id AND h.status = 'pending'
                  ORDER BY h.priority DESC, h.seq LIMIT 1)
ORDER BY r.priority DESC, r.seq
LIMIT $1;

-- name: lock_heads :many
-- $1 thread_ids in the order of the queue, $2 how many to lock. Threads, not runs: two nodes that locked runs would
-- meet in run_one_running_per_thread. One that somebody else holds is passed over, not waited for.
SELECT t.thread_id
FROM unnest($1::uuid[]) WITH ORDINALITY AS head (thread_id, place) JOIN matins.thread AS t USING (thread_id)
ORDER BY head.place
LIMIT $2
FOR NO KEY UPDATE OF t SKIP LOCKED;

-- name: claim_runs :many
-- `is_followed`, here and below: somebody follows the run on another node than its own, or follows its thread.
-- $1 locked thread_ids, $2 node_id, $3 the crashes that each one's first run was seen with: where it may start depends
-- on them
UPDATE matins.run AS r
SET status = 'running', node_id = $2, attempt = r.attempt + 1, updated_at = matins.now(),
    started_at = coalesce(r.started_at, matins.now()),
    base_checkpoint_id = CASE WHEN r.attempt > 0 THEN r.base_checkpoint_id ELSE
        (SELECT max(c.checkpoint_id) FROM checkpoints AS c
         WHERE c.thread_id = r.thread_id::text AND c.checkpoint_ns = '') END
FROM (
    SELECT DISTINCT ON (thread_id) thread_id, run_id, due_at
    FROM matins.run
    WHERE thread_id = ANY($1::uuid[]) AND status = 'pending'
    ORDER BY thread_id, priority DESC, seq
) AS head
JOIN unnest($1::uuid[], $3::int[]) AS seen (thread_id, crashes) USING (thread_id)
WHERE r.run_id = head.run_id
  AND r.crashes = seen.crashes
  AND head.due_at <= matins.now()
  AND NOT EXISTS (SELECT FROM matins.run AS b WHERE b.thread_id = r.thread_id AND b.status = 'running')
RETURNING r.*, NOT r.followed_on <@ ARRAY[r.node_id] OR EXISTS (
    SELECT FROM matins.thread AS t WHERE t.thread_id = r.thread_id AND t.followed_until > matins.now()
) AS is_followed;

-- name: seconds_to_next_due :one
-- How long until a pending run that is not yet due becomes due; null when none waits for its time.
-- The time is asked once, in a SELECT of its own, so that the index bounds it.
SELECT extract(epoch FROM min(due_at) - matins.now())::double precision AS seconds
FROM matins.run WHERE status = 'pending' AND due_at > (SELECT matins.now());

-- name: end_run :one
-- $1 run_id, $2 attempt, $3 the status to end in, $4 the statuses it may come from, $5 error or null,
-- $6 last_checkpoint_id or null. The caller holds the thread's row. No row: the lease is lost, or it is to be undone.
WITH held AS (
    SELECT run_id, NOT awaited_on <@ ARRAY[node_id] OR NOT run.followed_on <@ ARRAY[node_id] OR EXISTS (
        SELECT FROM matins.thread AS t WHERE t.thread_id = run.thread_id AND t.followed_until > matins.now()
    ) AS is_followed
    FROM matins.run WHERE run_id = $1
)
UPDATE matins.run AS r
SET status = $3, node_id = NULL, stop = NULL, stop_at = NULL, error = $5,
    last_checkpoint_id = coalesce($6, r.last_checkpoint_id), ended_at = matins.now(), updated_at = matins.now()
FROM held
WHERE r.run_id = held.run_id AND r.attempt = $2 AND r.status = ANY($4::text[]) AND r.stop IS DISTINCT FROM 'rollback'
RETURNING r.*, held.is_followed, EXISTS (SELECT FROM matins.idempotency_key AS k WHERE k.run_id = r.run_id) AS is_keyed;

-- name: was_settled :one
-- $1 run_id, $2 attempt
SELECT NOT EXISTS (SELECT FROM matins.run WHERE run_id = $1
                   AND (attempt <> $2 OR status IN ('pending', 'running'))) AS was_settled;

-- name: free_thread :one
-- $1 thread_id, $2 its status if no further run waits, $3 values or null to keep, $4 interrupts or null to keep,
-- $5 error or null, $6 the last stream sequence number used. The caller holds the thread's row.
UPDATE matins.thread AS t
SET status = CASE WHEN EXISTS (SELECT FROM matins.run AS r WHERE r.thread_id = t.thread_id
                               AND r.status IN ('pending', 'running')) THEN 'busy' ELSE $2 END,
    resting_status = $2,
    "values" = coalesce($3, t."values"),
    interrupts = coalesce($4, t.interrupts, '{}'),
    error = $5,
    event_seq = greatest(t.event_seq, $6),
    state_updated_at = matins.now(),
    updated_at = matins.now()
WHERE thread_id = $1
RETURNING status;

-- name: release_runs :many
-- $1 run_ids, $2 attempts, $3 how many crashes to charge each. Back to the queue: the next claim is a new attempt.
-- Threads stay busy. A run that was asked to stop keeps its wish.
UPDATE matins.run AS r
SET status = 'pending', node_id = NULL, crashes = r.crashes + $3, due_at = least(r.due_at, matins.now()),
    updated_at = matins.now()
FROM unnest($1::uuid[], $2::int[]) AS mine (run_id, attempt)
WHERE r.run_id = mine.run_id AND r.attempt = mine.attempt AND r.status = 'running'
RETURNING r.run_id, r.thread_id, r.attempt, r.crashes, r.stop;

-- name: retry_run :one
-- $1 run_id, $2 attempt, $3 seconds until it is tried again, $4 how often at most, $5 before when or null. Back to the
-- queue after an error that may pass. No row: it was tried often enough, or is to stop, or the attempt is over.
UPDATE matins.run AS r
SET status = 'pending', node_id = NULL, retries = r.retries + 1, updated_at = matins.now(),
    due_at = matins.now() + make_interval(secs => $3::double precision)
WHERE r.run_id = $1 AND r.attempt = $2 AND r.status = 'running' AND r.stop IS NULL AND r.retries < $4
  AND matins.now() + make_interval(secs => $3::double precision) < coalesce($5::timestamptz, 'infinity')
RETURNING r.retries;

-- name: held_by_node :many
-- $1 node_id
SELECT run_id, thread_id, attempt, stop, NOT run.followed_on <@ ARRAY[node_id] OR EXISTS (
    SELECT FROM matins.thread AS t WHERE t.thread_id = run.thread_id AND t.followed_until > matins.now()
    ) AS is_followed
FROM matins.run WHERE node_id = $1 AND status = 'running';

-- name: runs_of_dead_nodes :many
-- $1 this node, $2 nodes known to be dead though their lease may run on, or null for those without a lease, $3 limit
SELECT r.run_id, r.thread_id, r.attempt, r.node_id
FROM matins.run AS r LEFT JOIN matins.node AS n USING (node_id)
WHERE r.status = 'running' AND r.node_id <> $1
  AND CASE WHEN $2::uuid[] IS NULL THEN n.node_id IS NULL OR n.lease_until < matins.now()
           ELSE r.node_id = ANY($2::uuid[]) END
LIMIT $3;

-- name: renew_lease :one
-- $1 node_id, $2 name, $3 version, $4 length in seconds. A lease that had run out begins a new tenure.
INSERT INTO matins.node (node_id, name, version, lease_until)
VALUES ($1, $2, $3, matins.now() + make_interval(secs => $4::double precision))
ON CONFLICT (node_id) DO UPDATE
SET leased_since = CASE WHEN node.lease_until < matins.now() THEN matins.now() ELSE node.leased_since END,
    lease_until = excluded.lease_until
RETURNING extract(epoch FROM matins.now() - leased_since)::double precision AS tenure_s;

-- name: leave :exec
-- $1 node_ids. A node that has gone, or is known to be dead.
DELETE FROM matins.node WHERE node_id = ANY($1::uuid[]);

-- name: max_connections :one
-- How many connections the server takes, over all its clients.
SELECT current_setting('max_connections')::integer AS max_connections;

-- name: reap_left_behind :many
-- $1 for how many seconds they are left, $2 limit. Threads that temporary runs left behind for those who follow from
-- elsewhere.
SELECT thread_id FROM matins.run
WHERE temporary AND ended_at < matins.now() - make_interval(secs => $1::double precision)
LIMIT $2;

-- name: other_nodes :many
-- $1 this node
SELECT node_id FROM matins.node WHERE node_id <> $1
UNION
SELECT DISTINCT node_id FROM matins.run WHERE status = 'running' AND node_id <> $1;

-- name: forget_nodes :exec
-- Nodes whose lease ran out an hour ago.
DELETE FROM matins.node WHERE lease_until < matins.now() - interval '1 hour';
