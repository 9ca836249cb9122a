-- name: append_events :one
-- $1 run_id, $2 attempt, $3 seqs, $4 events, $5 payloads. Fenced: a stale attempt appends nothing.
WITH held AS (
    SELECT run_id, thread_id, attempt FROM matins.run
    WHERE run_id = $1 AND attempt = $2 AND status = 'running'
    ORDER BY run_id FOR SHARE
), appended AS (
    INSERT INTO matins.stream_event (thread_id, seq, run_id, attempt, event, data)
    SELECT held.thread_id, e.seq, held.run_id, held.attempt, e.event, e.data
    FROM held, unnest($3::bigint[], $4::text[], $5::json[]) AS e (seq, event, data)
    ON CONFLICT (thread_id, seq) DO NOTHING
    RETURNING seq
)
SELECT (SELECT count(*) FROM held) AS held, (SELECT count(*) FROM appended) AS appended;

-- name: append_thread_event :one
-- $1 thread_id, $2 run_id or null, $3 attempt or null, $4 event, $5 payload, $6 a number that is used already.
-- The caller holds the thread's row, and no run of it is running: nobody else takes numbers meanwhile.
WITH numbered AS (
    UPDATE matins.thread AS t
    SET event_seq = greatest(t.event_seq, $6, (SELECT max(e.seq) FROM matins.stream_event AS e WHERE e.thread_id = $1)) + 1
    WHERE t.thread_id = $1
    RETURNING t.thread_id, t.event_seq
)
INSERT INTO matins.stream_event (thread_id, seq, run_id, attempt, event, data, of_thread)
SELECT thread_id, event_seq, $2, $3, $4, $5, true FROM numbered
RETURNING seq;

-- name: read_events :many
-- $1 run_id, $2 after this seq, $3 limit
SELECT seq, event, data FROM matins.stream_event
WHERE run_id = $1 AND seq > $2 AND NOT of_thread
ORDER BY seq LIMIT $3;

-- name: read_thread_events :many
-- $1 thread_id, $2 after this seq, $3 limit
SELECT seq, event, data FROM matins.stream_event WHERE thread_id = $1 AND seq > $2 ORDER BY seq LIMIT $3;

-- name: last_event :one
-- $1 thread_id. The last sequence number the thread has used, kept or not.
SELECT greatest(
    (SELECT event_seq FROM matins.thread WHERE thread_id = $1),
    (SELECT max(seq) FROM matins.stream_event WHERE thread_id = $1)
) AS seq;

-- name: delete_events :exec
-- $1 run_id
DELETE FROM matins.stream_event WHERE run_id = $1;

-- name: end_of_thread :one
-- $1 thread_id. The last number that the thread has used, and the last one that is kept.
SELECT greatest(t.event_seq, e.last_seq) AS last_seq, e.last_seq AS kept
FROM matins.thread AS t, (SELECT max(seq) AS last_seq FROM matins.stream_event WHERE thread_id = $1) AS e
WHERE t.thread_id = $1;

-- name: look :many
-- $1 run_ids, $2 thread_ids. Of each, whether it is over or gone, and the last number that is kept of it.
SELECT w.id, r.thread_id, r.run_id IS NULL OR r.ended_at IS NOT NULL AS is_over,
       (SELECT max(e.seq) FROM matins.stream_event AS e WHERE e.run_id = w.id AND NOT e.of_thread) AS last_seq
FROM unnest($1::uuid[]) AS w (id) LEFT JOIN matins.run AS r ON r.run_id = w.id
UNION ALL
SELECT w.id, t.thread_id, t.thread_id IS NULL AS is_over,
       (SELECT max(e.seq) FROM matins.stream_event AS e WHERE e.thread_id = w.id) AS last_seq
FROM unnest($2::uuid[]) AS w (id) LEFT JOIN matins.thread AS t ON t.thread_id = w.id;

-- name: lock_threads_of_runs :many
-- $1 run_ids. Before follow_runs: a run that is being settled is over when the lock is given.
SELECT t.thread_id FROM matins.thread AS t
WHERE t.thread_id IN (SELECT r.thread_id FROM matins.run AS r WHERE r.run_id = ANY($1::uuid[]))
ORDER BY t.thread_id
FOR NO KEY UPDATE;

-- name: follow_runs :exec
-- $1 run_ids whose events are followed, $2 run_ids whose replies are awaited, $3 the node on which
UPDATE matins.run
SET followed_on = CASE WHEN run_id = ANY($1::uuid[]) AND $3 <> ALL(followed_on) THEN followed_on || $3::uuid
                       ELSE followed_on END,
    awaited_on = CASE WHEN run_id = ANY($2::uuid[]) AND $3 <> ALL(awaited_on) THEN awaited_on || $3::uuid
                      ELSE awaited_on END
WHERE run_id = ANY($1::uuid[] || $2::uuid[]) AND status IN ('pending', 'running');

-- name: follow_threads :many
-- $1 thread_ids, $2 for how many seconds from now
WITH locked AS (
    SELECT thread_id FROM matins.thread WHERE thread_id = ANY($1::uuid[]) ORDER BY thread_id FOR NO KEY UPDATE
)
UPDATE matins.thread AS t SET followed_until = matins.now() + make_interval(secs => $2::double precision)
FROM locked WHERE t.thread_id = locked.thread_id
RETURNING t.thread_id;

-- name: trim_events :many
-- $1 age in seconds, $2 how many at the most
DELETE FROM matins.stream_event
WHERE ctid = ANY(ARRAY(SELECT ctid FROM matins.stream_event
                       WHERE created_at < matins.now() - make_interval(secs => $1::double precision)
                       LIMIT $2))
RETURNING seq;
