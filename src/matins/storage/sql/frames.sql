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

-- name: read_events :many
-- $1 run_id, $2 after this seq, $3 limit
SELECT seq, event, data FROM matins.stream_event WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3;

-- name: last_event :one
-- $1 thread_id. The last sequence number the thread has used, kept or not.
SELECT greatest(
    (SELECT event_seq FROM matins.thread WHERE thread_id = $1),
    (SELECT max(seq) FROM matins.stream_event WHERE thread_id = $1)
) AS seq;

-- name: delete_events :exec
-- $1 run_id
DELETE FROM matins.stream_event WHERE run_id = $1;

-- name: trim_events :many
-- $1 age in seconds, $2 how many at the most
DELETE FROM matins.stream_event
WHERE ctid = ANY(ARRAY(SELECT ctid FROM matins.stream_event
                       WHERE created_at < matins.now() - make_interval(secs => $1::double precision)
                       LIMIT $2))
RETURNING seq;
