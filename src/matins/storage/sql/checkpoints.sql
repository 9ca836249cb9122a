-- LangGraph's tables, laid out as its own Postgres checkpointer lays them out: a checkpoint's primitive channel
-- values stand in checkpoint -> 'channel_values', all others in checkpoint_blobs by (channel, version).
-- Text is compared as bytes (COLLATE "C") where LangGraph compares strings in Python.

-- name: insert_held :one
-- $1 run_id, $2 attempt; one array a column:
-- $3-$8 checkpoints: thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata
-- $9-$14 blobs: thread_id, checkpoint_ns, channel, version, type, blob
-- $15-$23 writes: thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
-- $24-$27 which of the writes stand on checkpoints of other runs: checkpoint_ns, checkpoint_id, task_id, idx
WITH held AS (
    SELECT run_id, thread_id FROM matins.run WHERE run_id = $1 AND attempt = $2 AND status = 'running' FOR SHARE
), blobs AS (
    INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT new.* FROM held, unnest($9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bytea[]) AS new
    ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING
), points AS (
    INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
    SELECT new.* FROM held, unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::jsonb[]) AS new
    ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id)
    DO UPDATE SET checkpoint = excluded.checkpoint, metadata = excluded.metadata
), undo AS (
    INSERT INTO matins.run_undo
        (run_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, blob)
    SELECT held.run_id, new.*, w.task_path, w.channel, w.type, w.blob
    FROM held CROSS JOIN unnest($24::text[], $25::text[], $26::text[], $27::integer[])
        AS new (checkpoint_ns, checkpoint_id, task_id, idx)
    LEFT JOIN checkpoint_writes AS w ON w.thread_id = held.thread_id::text AND w.checkpoint_ns = new.checkpoint_ns
        AND w.checkpoint_id = new.checkpoint_id AND w.task_id = new.task_id AND w.idx = new.idx
    -- What stood there before the run's first write: later ones find its own.
    ON CONFLICT (run_id, checkpoint_ns, checkpoint_id, task_id, idx) DO NOTHING
), writes AS (
    INSERT INTO checkpoint_writes
        (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    SELECT new.* FROM held, unnest($15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::integer[],
                                   $21::text[], $22::text[], $23::bytea[]) AS new
    -- A negative idx is a special write (error, interrupt, resume ...): the last one counts. Of others the first.
    ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
    DO UPDATE SET channel = excluded.channel, type = excluded.type, blob = excluded.blob
    WHERE checkpoint_writes.idx < 0
)
SELECT EXISTS (SELECT FROM held) AS held

-- name: is_held :one
-- $1 run_id, $2 attempt. Without a row lock, which would cost a flush of the log: nothing is written on its answer.
SELECT EXISTS (SELECT FROM matins.run WHERE run_id = $1 AND attempt = $2 AND status = 'running') AS held

-- name: insert :exec
-- As insert_held without the fence; the caller's transaction holds the thread. One array a column:
-- $1-$6 checkpoints, $7-$12 blobs, $13-$21 writes
WITH blobs AS (
    INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT new.* FROM unnest($7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::bytea[]) AS new
    ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING
), points AS (
    INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
    SELECT new.* FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::jsonb[]) AS new
    ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id)
    DO UPDATE SET checkpoint = excluded.checkpoint, metadata = excluded.metadata
)
INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
SELECT new.* FROM unnest($13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::integer[],
                         $19::text[], $20::text[], $21::bytea[]) AS new
ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
DO UPDATE SET channel = excluded.channel, type = excluded.type, blob = excluded.blob
WHERE checkpoint_writes.idx < 0

-- name: get_newest :one
-- $1 thread_id, $2 checkpoint_ns
SELECT c.thread_id, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.checkpoint, c.metadata,
    ARRAY(
        SELECT ROW(b.channel, b.type, b.blob)
        FROM jsonb_each_text(c.checkpoint -> 'channel_versions') AS v
        JOIN checkpoint_blobs AS b ON b.thread_id = c.thread_id AND b.checkpoint_ns = c.checkpoint_ns
            AND b.channel = v.key AND b.version = v.value
    ) AS blobs,
    ARRAY(
        SELECT ROW(w.task_id, w.channel, w.type, w.blob) FROM checkpoint_writes AS w
        WHERE w.thread_id = c.thread_id AND w.checkpoint_ns = c.checkpoint_ns AND w.checkpoint_id = c.checkpoint_id
        ORDER BY w.task_path COLLATE "C", w.task_id COLLATE "C", w.idx
    ) AS writes,
    -- Before version 4 what a Send addressed stood among the parent's writes.
    ARRAY(
        SELECT ROW(w.type, w.blob) FROM checkpoint_writes AS w
        WHERE (c.checkpoint ->> 'v')::integer < 4
            AND w.thread_id = c.thread_id AND w.checkpoint_ns = c.checkpoint_ns
            AND w.checkpoint_id = c.parent_checkpoint_id AND w.channel = '__pregel_tasks'
        ORDER BY w.task_path COLLATE "C", w.task_id COLLATE "C", w.idx
    ) AS sends
FROM checkpoints AS c
WHERE c.thread_id = $1 AND c.checkpoint_ns = $2
ORDER BY c.checkpoint_id DESC
LIMIT 1

-- name: search :many
-- $1 thread_id?, $2 checkpoint_ns?, $3 checkpoint_id?, $4 before: a checkpoint_id?, $5 metadata contained?, $6 limit?
SELECT c.thread_id, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.checkpoint, c.metadata,
    ARRAY(
        SELECT ROW(b.channel, b.type, b.blob)
        FROM jsonb_each_text(c.checkpoint -> 'channel_versions') AS v
        JOIN checkpoint_blobs AS b ON b.thread_id = c.thread_id AND b.checkpoint_ns = c.checkpoint_ns
            AND b.channel = v.key AND b.version = v.value
    ) AS blobs,
    ARRAY(
        SELECT ROW(w.task_id, w.channel, w.type, w.blob) FROM checkpoint_writes AS w
        WHERE w.thread_id = c.thread_id AND w.checkpoint_ns = c.checkpoint_ns AND w.checkpoint_id = c.checkpoint_id
        ORDER BY w.task_path COLLATE "C", w.task_id COLLATE "C", w.idx
    ) AS writes,
    ARRAY(
        SELECT ROW(w.type, w.blob) FROM checkpoint_writes AS w
        WHERE (c.checkpoint ->> 'v')::integer < 4
            AND w.thread_id = c.thread_id AND w.checkpoint_ns = c.checkpoint_ns
            AND w.checkpoint_id = c.parent_checkpoint_id AND w.channel = '__pregel_tasks'
        ORDER BY w.task_path COLLATE "C", w.task_id COLLATE "C", w.idx
    ) AS sends
FROM checkpoints AS c
WHERE ($1::text IS NULL OR c.thread_id = $1)
    AND ($2::text IS NULL OR c.checkpoint_ns = $2)
    AND ($3::text IS NULL OR c.checkpoint_id = $3)
    AND ($4::text IS NULL OR c.checkpoint_id < $4)
    AND ($5::jsonb IS NULL OR c.metadata @> $5)
ORDER BY c.checkpoint_id DESC
LIMIT $6::bigint

-- name: list_deltas :many
-- What a DeltaChannel is rebuilt from: for each channel its writes on the way from the target's parent up to the
-- nearest ancestor that stores a value (the seed), oldest first.
-- $1 thread_id, $2 checkpoint_ns, $3 target checkpoint_id? (newest), $4 channels
WITH RECURSIVE target AS (
    SELECT parent_checkpoint_id FROM checkpoints
    WHERE thread_id = $1 AND checkpoint_ns = $2 AND ($3::text IS NULL OR checkpoint_id = $3)
    ORDER BY checkpoint_id DESC LIMIT 1
), walk AS (
    SELECT channel, target.parent_checkpoint_id AS next_id, 0 AS depth,
        NULL::text AS checkpoint_id, NULL::text AS version, NULL::jsonb AS inline, false AS stored
    FROM unnest($4::text[]) AS channel, target
    UNION ALL
    SELECT w.channel, c.parent_checkpoint_id, w.depth + 1, c.checkpoint_id, at.version, at.inline,
        -- A JSON null counts as not stored. A blob may be there with or without a mark in channel_values.
        coalesce(at.inline <> 'null', false) OR EXISTS (
            SELECT FROM checkpoint_blobs AS b
            WHERE b.thread_id = $1 AND b.checkpoint_ns = $2 AND b.channel = w.channel AND b.version = at.version
                AND b.type <> 'empty')
    FROM walk AS w
    JOIN checkpoints AS c ON c.thread_id = $1 AND c.checkpoint_ns = $2 AND c.checkpoint_id = w.next_id
    CROSS JOIN LATERAL (
        SELECT c.checkpoint -> 'channel_versions' ->> w.channel AS version,
            c.checkpoint -> 'channel_values' -> w.channel AS inline
    ) AS at
    WHERE NOT w.stored
)
SELECT wanted.channel,
    ARRAY(
        SELECT ROW(cw.task_id, cw.channel, cw.type, cw.blob)
        FROM walk JOIN checkpoint_writes AS cw ON cw.thread_id = $1 AND cw.checkpoint_ns = $2
            AND cw.checkpoint_id = walk.checkpoint_id AND cw.channel = walk.channel
        WHERE walk.channel = wanted.channel
        ORDER BY walk.depth DESC, cw.task_path COLLATE "C", cw.task_id COLLATE "C", cw.idx
    ) AS writes,
    seed.inline AS seed_inline, b.type AS seed_type, b.blob AS seed_blob
FROM unnest($4::text[]) AS wanted (channel)
LEFT JOIN walk AS seed ON seed.channel = wanted.channel AND seed.stored
LEFT JOIN checkpoint_blobs AS b ON b.thread_id = $1 AND b.checkpoint_ns = $2
    AND b.channel = wanted.channel AND b.version = seed.version AND b.type <> 'empty'

-- name: delete :exec
-- $1 thread_ids
WITH points AS (DELETE FROM checkpoints WHERE thread_id = ANY($1::text[])),
    blobs AS (DELETE FROM checkpoint_blobs WHERE thread_id = ANY($1::text[]))
DELETE FROM checkpoint_writes WHERE thread_id = ANY($1::text[])

-- name: delete_of_runs :exec
-- What these runs put, with the blobs that nothing else refers to. Without a thread this reads the whole table.
-- $1 run_ids, $2 thread_id?
WITH gone AS (
    DELETE FROM checkpoints
    WHERE metadata ->> 'run_id' = ANY($1::text[]) AND ($2::text IS NULL OR thread_id = $2)
    RETURNING thread_id, checkpoint_ns, checkpoint_id, checkpoint -> 'channel_versions' AS versions
), writes AS (
    DELETE FROM checkpoint_writes AS w USING gone
    WHERE w.thread_id = gone.thread_id AND w.checkpoint_ns = gone.checkpoint_ns
        AND w.checkpoint_id = gone.checkpoint_id
), freed AS (
    SELECT gone.thread_id, gone.checkpoint_ns, v.key AS channel, v.value AS version
    FROM gone CROSS JOIN LATERAL jsonb_each_text(gone.versions) AS v
    EXCEPT
    SELECT c.thread_id, c.checkpoint_ns, v.key, v.value
    FROM checkpoints AS c CROSS JOIN LATERAL jsonb_each_text(c.checkpoint -> 'channel_versions') AS v
    WHERE c.thread_id IN (SELECT thread_id FROM gone)
        AND (c.thread_id, c.checkpoint_ns, c.checkpoint_id)
            NOT IN (SELECT thread_id, checkpoint_ns, checkpoint_id FROM gone)
)
DELETE FROM checkpoint_blobs AS b USING freed
WHERE b.thread_id = freed.thread_id AND b.checkpoint_ns = freed.checkpoint_ns
    AND b.channel = freed.channel AND b.version = freed.version

-- name: put_back :exec
-- What stood on checkpoints of other runs before this run wrote there. $1 run_id, $2 thread_id
WITH undo AS (
    DELETE FROM matins.run_undo WHERE run_id = $1 RETURNING *
), restored AS (
    UPDATE checkpoint_writes AS w SET task_path = u.task_path, channel = u.channel, type = u.type, blob = u.blob
    FROM undo AS u
    WHERE u.blob IS NOT NULL AND w.thread_id = $2 AND w.checkpoint_ns = u.checkpoint_ns
        AND w.checkpoint_id = u.checkpoint_id AND w.task_id = u.task_id AND w.idx = u.idx
)
DELETE FROM checkpoint_writes AS w USING undo AS u
WHERE u.blob IS NULL AND w.thread_id = $2 AND w.checkpoint_ns = u.checkpoint_ns
    AND w.checkpoint_id = u.checkpoint_id AND w.task_id = u.task_id AND w.idx = u.idx

-- name: forget_undo :exec
-- What is kept of runs that have ended: nothing will undo them.
DELETE FROM matins.run_undo AS u USING matins.run AS r
WHERE r.run_id = u.run_id AND r.status NOT IN ('pending', 'running')

-- name: copy :exec
-- Everything, ancestors too: a DeltaChannel is rebuilt from them.
-- $1 source thread_id, $2 target thread_id
WITH points AS (
    INSERT INTO checkpoints
        (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
    SELECT $2, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
    FROM checkpoints WHERE thread_id = $1
), blobs AS (
    INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT $2, checkpoint_ns, channel, version, type, blob FROM checkpoint_blobs WHERE thread_id = $1
)
INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
SELECT $2, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
FROM checkpoint_writes WHERE thread_id = $1

-- name: list_delta_threads :many
-- The threads that a DeltaChannel wrote on: counters in the metadata, or a snapshot, which is the only value that is
-- marked `true` inline and stands in the blobs as well.
-- $1 thread_ids
SELECT DISTINCT c.thread_id FROM checkpoints AS c
WHERE c.thread_id = ANY($1::text[]) AND (
    c.metadata ?| '{counters_since_delta_snapshot, delta_writes_versioned}'
    OR EXISTS (
        SELECT FROM jsonb_each(c.checkpoint -> 'channel_values') AS v
        JOIN checkpoint_blobs AS b ON b.thread_id = c.thread_id AND b.checkpoint_ns = c.checkpoint_ns
            AND b.channel = v.key AND b.version = c.checkpoint -> 'channel_versions' ->> v.key
        WHERE v.value = 'true'))

-- name: keep_latest :exec
-- Leave the newest checkpoint of each namespace with its writes and blobs. The namespace of one subgraph call
-- (a task id behind a colon) goes when the root checkpoint that made the call goes.
-- $1 thread_id
WITH head AS MATERIALIZED (
    SELECT DISTINCT ON (checkpoint_ns) checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint,
        metadata -> 'parents' ->> '' AS root_id
    FROM checkpoints WHERE thread_id = $1
    ORDER BY checkpoint_ns DESC, checkpoint_id DESC
), kept AS MATERIALIZED (
    SELECT checkpoint_ns, checkpoint_id FROM head WHERE (
        checkpoint_ns LIKE '%:%'
        AND root_id IN (SELECT checkpoint_id FROM checkpoints WHERE thread_id = $1 AND checkpoint_ns = '')
        AND root_id NOT IN (SELECT checkpoint_id FROM head WHERE checkpoint_ns = '')
    ) IS NOT TRUE
), needed AS MATERIALIZED (
    SELECT checkpoint_ns, checkpoint_id FROM kept
    UNION
    -- Before version 4 the parent's writes hold what a Send addressed.
    SELECT checkpoint_ns, head.parent_checkpoint_id FROM head JOIN kept USING (checkpoint_ns, checkpoint_id)
    WHERE (head.checkpoint ->> 'v')::integer < 4 AND EXISTS (
        SELECT FROM checkpoint_writes AS w
        WHERE w.thread_id = $1 AND w.checkpoint_ns = head.checkpoint_ns
            AND w.checkpoint_id = head.parent_checkpoint_id AND w.channel = '__pregel_tasks')
), used AS MATERIALIZED (
    SELECT checkpoint_ns, v.key AS channel, v.value AS version
    FROM checkpoints AS c JOIN needed USING (checkpoint_ns, checkpoint_id)
    CROSS JOIN LATERAL jsonb_each_text(c.checkpoint -> 'channel_versions') AS v
    WHERE c.thread_id = $1
), points AS (
    DELETE FROM checkpoints AS c WHERE c.thread_id = $1
        AND NOT EXISTS (SELECT FROM needed WHERE needed.checkpoint_ns = c.checkpoint_ns
            AND needed.checkpoint_id = c.checkpoint_id)
), writes AS (
    DELETE FROM checkpoint_writes AS w WHERE w.thread_id = $1
        AND NOT EXISTS (SELECT FROM needed WHERE needed.checkpoint_ns = w.checkpoint_ns
            AND needed.checkpoint_id = w.checkpoint_id)
), blobs AS (
    DELETE FROM checkpoint_blobs AS b WHERE b.thread_id = $1
        AND NOT EXISTS (SELECT FROM used WHERE used.checkpoint_ns = b.checkpoint_ns
            AND used.channel = b.channel AND used.version = b.version)
)
UPDATE checkpoints AS c SET parent_checkpoint_id = NULL
FROM needed
WHERE c.thread_id = $1 AND c.checkpoint_ns = needed.checkpoint_ns AND c.checkpoint_id = needed.checkpoint_id
    AND NOT EXISTS (SELECT FROM needed AS parent WHERE parent.checkpoint_ns = c.checkpoint_ns
        AND parent.checkpoint_id = c.parent_checkpoint_id)

-- name: merge_checkpoint_metadata :exec
-- $1 thread_id, $2 metadata. Into that of the newest root checkpoint; not the keys by which LangGraph, and a run that is
-- taken up again, know a checkpoint.
UPDATE checkpoints SET metadata = metadata
    || ($2::jsonb - '{source,step,parents,thread_id,run_id,counters_since_delta_snapshot,delta_writes_versioned}'::text[])
WHERE thread_id = $1 AND checkpoint_ns = '' AND checkpoint_id =
    (SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = $1 AND checkpoint_ns = '')

-- name: measure_checkpoints :one
-- $1 thread_id. Values stand in blobs, but those of simple types: they stand in the checkpoint itself.
SELECT c.count AS checkpoints, c.bytes AS checkpoint_bytes, w.count AS writes, w.bytes AS write_bytes, b.channels
FROM (SELECT count(*), coalesce(sum(octet_length(checkpoint::text) + octet_length(metadata::text)), 0)::bigint AS bytes
      FROM checkpoints WHERE thread_id = $1) AS c,
    (SELECT count(*), coalesce(sum(octet_length(blob)), 0)::bigint AS bytes
     FROM checkpoint_writes WHERE thread_id = $1) AS w,
    (SELECT array_agg((channel, versions, bytes) ORDER BY channel) AS channels
     FROM (SELECT channel, count(*) AS versions, coalesce(sum(octet_length(blob)), 0)::bigint AS bytes
           FROM checkpoint_blobs WHERE thread_id = $1 AND type <> 'empty' GROUP BY channel) AS each) AS b
