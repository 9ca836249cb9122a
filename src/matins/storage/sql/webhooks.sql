-- name: insert_delivery :exec
-- $1 delivery_id, $2 run_id, $3 thread_id or null, $4 owner, $5 url, $6 host, $7 payload. A run reports once.
INSERT INTO matins.webhook_delivery (delivery_id, run_id, thread_id, owner, url, host, payload)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (run_id) DO NOTHING;

-- name: insert_alert :exec
-- $1 delivery_id, $2 cron_id, $3 owner, $4 url, $5 host, $6 payload
INSERT INTO matins.webhook_delivery (delivery_id, cron_id, owner, url, host, payload) VALUES ($1, $2, $3, $4, $5, $6);

-- name: list_due_hosts :many
-- Hosts to which something is due. Goes from host to host in the index, past however much waits for one of them.
WITH RECURSIVE waiting AS (
    (SELECT host, next_attempt_at FROM matins.webhook_delivery
     WHERE delivered_at IS NULL AND dead_at IS NULL ORDER BY host, next_attempt_at LIMIT 1)
    UNION ALL
    SELECT following.host, following.next_attempt_at
    FROM waiting CROSS JOIN LATERAL (
        SELECT d.host, d.next_attempt_at FROM matins.webhook_delivery AS d
        WHERE d.delivered_at IS NULL AND d.dead_at IS NULL AND d.host > waiting.host
        ORDER BY d.host, d.next_attempt_at LIMIT 1
    ) AS following
)
SELECT host FROM waiting WHERE next_attempt_at <= matins.now();

-- name: claim_deliveries :many
-- $1 hosts, $2 how many of each, $3 seconds for which they are claimed. What another node claims just now is skipped.
-- A claim that nobody follows up runs out, and the delivery is tried again.
UPDATE matins.webhook_delivery AS d
SET attempts = d.attempts + 1, next_attempt_at = matins.now() + make_interval(secs => $3::double precision)
FROM (
    SELECT due.delivery_id
    FROM unnest($1::text[], $2::int[]) AS room (host, places) CROSS JOIN LATERAL (
        SELECT w.delivery_id FROM matins.webhook_delivery AS w
        WHERE w.host = room.host AND w.delivered_at IS NULL AND w.dead_at IS NULL
          AND w.next_attempt_at <= (SELECT matins.now())
        ORDER BY w.next_attempt_at
        LIMIT room.places
        FOR UPDATE SKIP LOCKED
    ) AS due
) AS claimed
WHERE d.delivery_id = claimed.delivery_id
RETURNING d.delivery_id, d.run_id, d.cron_id, d.url, d.host, d.payload, d.attempts, matins.now() AS claimed_at;

-- name: settle_delivery :exec
-- $1 delivery_id. It was delivered, whichever try it was.
UPDATE matins.webhook_delivery
SET delivered_at = matins.now(), next_attempt_at = NULL, dead_at = NULL, last_error = NULL
WHERE delivery_id = $1 AND delivered_at IS NULL;

-- name: retry_delivery :exec
-- $1 delivery_id, $2 which try failed, $3 seconds to the next one or null to give up, $4 why it failed.
-- A try whose claim ran out has no say any more.
UPDATE matins.webhook_delivery
SET next_attempt_at = matins.now() + make_interval(secs => $3::double precision),
    dead_at = CASE WHEN $3::double precision IS NULL THEN matins.now() END,
    last_error = $4
WHERE delivery_id = $1 AND attempts = $2 AND delivered_at IS NULL AND dead_at IS NULL;

-- name: list_deliveries :many
-- $1 owner or null, $2 run_id or null, $3 status or null, $4 limit, $5 offset. The newest first, without their payloads.
SELECT delivery_id, run_id, cron_id, thread_id, url, attempts, next_attempt_at, delivered_at, dead_at, last_error, created_at
FROM matins.webhook_delivery
WHERE ($1::text IS NULL OR owner = $1)
  AND ($2::uuid IS NULL OR run_id = $2)
  AND CASE $3::text WHEN 'pending' THEN delivered_at IS NULL AND dead_at IS NULL
                    WHEN 'delivered' THEN delivered_at IS NOT NULL
                    WHEN 'dead' THEN dead_at IS NOT NULL
                    ELSE true END
ORDER BY created_at DESC, delivery_id DESC
LIMIT $4 OFFSET $5;

-- name: count_deliveries :one
-- $1 owner or null, $2 run_id or null, $3 status or null, $4 the most to count
SELECT count(*) FROM (
    SELECT 1 FROM matins.webhook_delivery
    WHERE ($1::text IS NULL OR owner = $1)
      AND ($2::uuid IS NULL OR run_id = $2)
      AND CASE $3::text WHEN 'pending' THEN delivered_at IS NULL AND dead_at IS NULL
                        WHEN 'delivered' THEN delivered_at IS NOT NULL
                        WHEN 'dead' THEN dead_at IS NOT NULL
                        ELSE true END
    LIMIT $4
) AS matching;

-- name: get_delivery :one
-- $1 delivery_id, $2 owner or null
SELECT delivery_id, run_id, cron_id, thread_id, url, attempts, next_attempt_at, delivered_at, dead_at, last_error, created_at
FROM matins.webhook_delivery WHERE delivery_id = $1 AND ($2::text IS NULL OR owner = $2);

-- name: replay_delivery :one
-- $1 delivery_id, $2 owner or null. One that has ended begins anew, with all its tries.
UPDATE matins.webhook_delivery
SET attempts = 0, next_attempt_at = matins.now(), delivered_at = NULL, dead_at = NULL
WHERE delivery_id = $1 AND ($2::text IS NULL OR owner = $2)
  AND (delivered_at IS NOT NULL OR dead_at IS NOT NULL)
RETURNING delivery_id, run_id, cron_id, thread_id, url, attempts, next_attempt_at, delivered_at, dead_at, last_error, created_at;

-- name: delete_delivery_of_run :exec
-- $1 run_id
DELETE FROM matins.webhook_delivery WHERE run_id = $1;

-- name: forget_deliveries :many
-- $1 how long delivered ones are kept, in seconds, $2 how long dead ones are, $3 limit
DELETE FROM matins.webhook_delivery WHERE delivery_id IN (
    (SELECT delivery_id FROM matins.webhook_delivery
     WHERE delivered_at < (SELECT matins.now()) - make_interval(secs => $1::double precision) LIMIT $3)
    UNION ALL
    (SELECT delivery_id FROM matins.webhook_delivery
     WHERE dead_at < (SELECT matins.now()) - make_interval(secs => $2::double precision) LIMIT $3)
)
RETURNING delivery_id;
