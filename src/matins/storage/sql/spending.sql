-- name: add_spending :one
-- $1 run_id, $2 attempt, $3 how many calls it has made with these, $4 how many these are, $5 input tokens, $6 output
-- tokens, $7 tokens in all, $8 US dollars. Not fenced: also what an attempt spent that is not the present one any more
-- was spent. No row: they are counted already.
UPDATE matins.cron_fire
SET model_calls = model_calls + $4, input_tokens = input_tokens + $5, output_tokens = output_tokens + $6,
    tokens = tokens + $7, cost_usd = cost_usd + $8, counted_attempt = $2, counted_calls = $3
WHERE run_id = $1 AND (counted_attempt <> $2 OR counted_calls < $3)
RETURNING cron_id;

-- name: sum_spending :many
-- $1 cron_ids, $2 since when tokens and dollars count, or null when they are not asked for, $3 whether all runs are to be
-- counted, $4 how many runs of the last 24 hours to count at most. A run that was under way when the window began is
-- in it.
SELECT c.cron_id,
       (SELECT count(*) FROM (
            SELECT FROM matins.cron_fire AS f
            WHERE f.cron_id = c.cron_id AND f.run_id IS NOT NULL
              AND f.recorded_at > (SELECT matins.now()) - interval '24 hours'
            LIMIT c.most
        ) AS recent) AS runs_of_day,
       CASE WHEN c.counts THEN (
            SELECT count(*) FROM matins.cron_fire AS f WHERE f.cron_id = c.cron_id AND f.run_id IS NOT NULL
       ) ELSE 0 END AS runs,
       coalesce(used.tokens, 0)::bigint AS tokens,
       coalesce(used.usd, 0) AS usd
FROM unnest($1::uuid[], $2::timestamptz[], $3::boolean[], $4::bigint[]) AS c (cron_id, since, counts, most)
LEFT JOIN LATERAL (
    SELECT sum(f.tokens) AS tokens, sum(f.cost_usd) AS usd FROM matins.cron_fire AS f
    WHERE f.cron_id = c.cron_id AND f.run_id IS NOT NULL AND f.recorded_at >= c.since - interval '1 day'
      AND (f.recorded_at >= c.since OR f.ended_at IS NULL OR f.ended_at >= c.since)
) AS used ON c.since IS NOT NULL;

-- name: list_ends :many
-- $1 cron_id, $2 recorded since or null, $3 limit. How the newest runs of a cron ended, the newest slot first; what was
-- cancelled or deleted says nothing.
SELECT scheduled_for, status FROM matins.cron_fire
WHERE cron_id = $1 AND status IN ('success', 'error', 'timeout') AND recorded_at >= coalesce($2, '-infinity'::timestamptz)
ORDER BY scheduled_for DESC
LIMIT $3;

-- name: mean_spending :one
-- $1 cron_id, $2 how many of the newest successes count. What they took on average; null without any.
SELECT avg(newest.tokens)::double precision AS tokens, avg(newest.cost_usd) AS usd
FROM (
    SELECT f.tokens, f.cost_usd FROM matins.cron_fire AS f
    WHERE f.cron_id = $1 AND f.status = 'success'
    ORDER BY f.scheduled_for DESC LIMIT $2
) AS newest;
