-- name: runs_of_crons :many
-- $1 cron_ids
SELECT cron_id, run_id, thread_id, status FROM matins.run
WHERE cron_id = ANY($1::uuid[]) AND status IN ('pending', 'running')
ORDER BY seq;

-- name: crons_that_wait :many
-- $1 cron_ids. For their previous run, not to be caught up.
SELECT DISTINCT cron_id FROM matins.cron_fire
WHERE cron_id = ANY($1::uuid[]) AND outcome = 'waiting' AND trigger = 'schedule';

-- name: list_waiting :many
-- $1 how many may be caught up at once, $2 how many to find. Of each cron the oldest slot that waits, unless the cron has
-- a run in flight: what waits for its previous run first, whatever is caught up; then the others, as far as there is
-- room. A look: lock_waiting decides. Goes from cron to cron in the index, past however much waits of each, and no
-- further than there is room.
WITH RECURSIVE queued AS (
    SELECT DISTINCT ON (cron_id) cron_id, scheduled_for, trigger FROM matins.cron_fire
    WHERE outcome = 'waiting' AND trigger = 'schedule' ORDER BY cron_id, scheduled_for
), oldest AS (
    (SELECT cron_id, scheduled_for, trigger FROM matins.cron_fire WHERE outcome = 'waiting' AND trigger <> 'schedule'
     ORDER BY cron_id, scheduled_for LIMIT 1)
    UNION ALL
    SELECT following.cron_id, following.scheduled_for, following.trigger
    FROM oldest CROSS JOIN LATERAL (
        SELECT f.cron_id, f.scheduled_for, f.trigger FROM matins.cron_fire AS f
        WHERE f.outcome = 'waiting' AND f.trigger <> 'schedule' AND f.cron_id > oldest.cron_id
        ORDER BY f.cron_id, f.scheduled_for LIMIT 1
    ) AS following
)
(SELECT cron_id, scheduled_for, trigger FROM queued
 WHERE NOT EXISTS (SELECT FROM matins.run AS r WHERE r.cron_id = queued.cron_id AND r.status IN ('pending', 'running'))
   AND NOT EXISTS (SELECT FROM matins.cron_hold)
 LIMIT $2)
UNION ALL
(SELECT cron_id, scheduled_for, trigger FROM oldest
 WHERE NOT EXISTS (SELECT FROM matins.run AS r WHERE r.cron_id = oldest.cron_id AND r.status IN ('pending', 'running'))
   AND NOT EXISTS (SELECT FROM matins.cron_hold)
 LIMIT greatest(0, $1 - (SELECT count(*) FROM matins.cron_fire
                         WHERE trigger IN ('catch_up', 'backfill') AND status IN ('pending', 'running'))));

-- name: newest_fired :many
-- $1 cron_ids. Of each the newest slot that has fired or waits for its run; what a person has triggered is no slot.
SELECT c.cron_id, newest.scheduled_for
FROM unnest($1::uuid[]) AS c (cron_id)
CROSS JOIN LATERAL (
    SELECT f.scheduled_for FROM matins.cron_fire AS f
    WHERE f.cron_id = c.cron_id AND f.outcome IN ('fired', 'waiting') AND f.trigger <> 'manual'
    ORDER BY f.scheduled_for DESC LIMIT 1
) AS newest;

-- name: known_fires :many
-- $1 cron_id, $2 slots, $3 window. For each slot the newest on record that is not that far before it, or itself.
SELECT coalesce(f.scheduled_for, s.slot) AS scheduled_for, f.outcome
FROM unnest($2::timestamptz[]) WITH ORDINALITY AS s (slot, place)
LEFT JOIN LATERAL (
    SELECT scheduled_for, outcome FROM matins.cron_fire
    WHERE cron_id = $1 AND scheduled_for > s.slot - $3::interval AND scheduled_for <= s.slot AND trigger <> 'manual'
    ORDER BY scheduled_for DESC LIMIT 1
) AS f ON true
ORDER BY s.place;

-- name: ask_for_fires :exec
-- $1 cron_id, $2 slots, $3 thread_id or null, $4 assistant_id, $5 owner. One that has had a run is left alone.
INSERT INTO matins.cron_fire (cron_id, scheduled_for, outcome, reason, trigger, thread_id, assistant_id, owner)
SELECT $1, slot, 'waiting', 'to be filled in', 'backfill', $3, $4, $5 FROM unnest($2::timestamptz[]) AS slot
ON CONFLICT (cron_id, scheduled_for) DO UPDATE
SET outcome = excluded.outcome, reason = excluded.reason, trigger = excluded.trigger, thread_id = excluded.thread_id,
    assistant_id = excluded.assistant_id, recorded_at = matins.now()
WHERE cron_fire.outcome IN ('missed', 'skipped', 'failed');

-- name: lock_waiting :one
-- $1 cron_id, $2 slot
SELECT cron_id FROM matins.cron_fire
WHERE cron_id = $1 AND scheduled_for = $2 AND outcome = 'waiting'
FOR UPDATE SKIP LOCKED;

-- name: give_up_fires :exec
-- $1 cron_id, $2 outcome, $3 reason, $4 a slot or null for all that wait
UPDATE matins.cron_fire SET outcome = $2, reason = $3, recorded_at = matins.now()
WHERE cron_id = $1 AND outcome = 'waiting' AND scheduled_for = coalesce($4, scheduled_for);

-- name: skip_fire :exec
-- $1 run_id, $2 reason. The thread of a cron without one goes with the run.
UPDATE matins.cron_fire AS f
SET outcome = 'skipped', reason = $2, run_id = NULL, status = NULL, started_at = NULL,
    thread_id = (SELECT c.thread_id FROM matins.cron AS c WHERE c.cron_id = f.cron_id)
WHERE run_id = $1;

-- name: fire_to_be_asked :one
-- $1 run_id. No row: a person wants it, or an earlier attempt has begun it.
SELECT f.scheduled_for, (SELECT max(s.scheduled_for) FROM matins.cron_fire AS s
                         WHERE s.cron_id = f.cron_id AND s.status = 'success') AS last_success
FROM matins.cron_fire AS f JOIN matins.run AS r USING (run_id)
WHERE f.run_id = $1 AND f.trigger <> 'manual' AND r.retries = 0
  AND r.base_checkpoint_id IS NOT DISTINCT FROM (SELECT max(c.checkpoint_id) FROM checkpoints AS c
                                                 WHERE c.thread_id = r.thread_id::text AND c.checkpoint_ns = '');

-- name: keep_output :exec
-- $1 run_id, $2 its last words
UPDATE matins.cron_fire SET output = $2 WHERE run_id = $1;

-- name: list_fires :many
-- $1 cron_id, $2 owner or null, $3 outcome or null, $4 status or null, $5 trigger or null, $6 from or null,
-- $7 to (exclusive) or null, $8 limit, $9 offset. The newest slot first.
SELECT * FROM matins.cron_fire
WHERE cron_id = $1 AND ($2::text IS NULL OR owner = $2)
  AND ($3::text IS NULL OR outcome = $3) AND ($4::text IS NULL OR status = $4) AND ($5::text IS NULL OR trigger = $5)
  AND scheduled_for >= coalesce($6::timestamptz, '-infinity') AND scheduled_for < coalesce($7::timestamptz, 'infinity')
ORDER BY scheduled_for DESC
LIMIT $8 OFFSET $9;

-- name: count_fires :one
-- $1-$7 as list_fires, $8 the most to count or null
SELECT count(*) FROM (
    SELECT 1 FROM matins.cron_fire
    WHERE cron_id = $1 AND ($2::text IS NULL OR owner = $2)
      AND ($3::text IS NULL OR outcome = $3) AND ($4::text IS NULL OR status = $4)
      AND ($5::text IS NULL OR trigger = $5)
      AND scheduled_for >= coalesce($6::timestamptz, '-infinity')
      AND scheduled_for < coalesce($7::timestamptz, 'infinity')
    LIMIT $8
) AS matching;

-- name: sum_fires :many
-- $1 cron_ids, $2 how many of the newest slots count. For each cron that has any: its newest slot, its newest success,
-- how many runs in a row were a success, or below zero a failure (what was cancelled is neither), and the median of
-- how long its successes took, and what it has used in 7 days.
SELECT c.cron_id, newest.*, success.last_success, recent.streak, recent.p50_s, week.tokens_7d, week.cost_usd_7d
FROM unnest($1::uuid[]) AS c (cron_id)
CROSS JOIN LATERAL (
    SELECT f.scheduled_for, f.outcome, f.reason, f.trigger, f.run_id, f.status
    FROM matins.cron_fire AS f WHERE f.cron_id = c.cron_id ORDER BY f.scheduled_for DESC LIMIT 1
) AS newest
CROSS JOIN LATERAL (
    SELECT max(f.scheduled_for) AS last_success
    FROM matins.cron_fire AS f WHERE f.cron_id = c.cron_id AND f.status = 'success'
) AS success
CROSS JOIN LATERAL (
    SELECT coalesce(sum(f.tokens), 0)::bigint AS tokens_7d, coalesce(sum(f.cost_usd), 0) AS cost_usd_7d
    FROM matins.cron_fire AS f
    WHERE f.cron_id = c.cron_id AND f.run_id IS NOT NULL AND f.recorded_at > matins.now() - interval '7 days'
) AS week
CROSS JOIN LATERAL (
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM ended_at - started_at)::double precision)
               FILTER (WHERE status = 'success') AS p50_s,
           count(*) FILTER (WHERE is_good AND bad_before = 0) - count(*) FILTER (WHERE NOT is_good AND good_before = 0)
               AS streak
    FROM (
        SELECT f.status, f.started_at, f.ended_at, f.status = 'success' AS is_good,
               count(*) FILTER (WHERE f.status = 'success') OVER older AS good_before,
               count(*) FILTER (WHERE f.status <> 'success') OVER older AS bad_before
        FROM (
            SELECT * FROM matins.cron_fire AS one WHERE one.cron_id = c.cron_id
            ORDER BY one.scheduled_for DESC LIMIT $2
        ) AS f
        WHERE f.status IN ('success', 'error', 'timeout')
        WINDOW older AS (ORDER BY f.scheduled_for DESC)
    ) AS ended
) AS recent;

-- name: trim_fires :many
-- $1 older than this many seconds, $2 limit. The runs of a cron with `max_runs` stay: they are counted.
DELETE FROM matins.cron_fire WHERE (cron_id, scheduled_for) IN (
    SELECT cron_id, scheduled_for FROM matins.cron_fire
    WHERE recorded_at < matins.now() - make_interval(secs => $1::double precision)
      AND status IS DISTINCT FROM 'pending' AND status IS DISTINCT FROM 'running'
      AND (run_id IS NULL OR NOT EXISTS (SELECT FROM matins.cron AS c WHERE c.cron_id = cron_fire.cron_id
                                                                        AND c.policy ->> 'max_runs' IS NOT NULL))
    ORDER BY recorded_at LIMIT $2
)
RETURNING cron_id;

-- name: get_fire_of_run :one
-- $1 run_id
SELECT * FROM matins.cron_fire WHERE run_id = $1;
