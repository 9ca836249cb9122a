-- name: claim_key :one
-- $1 owner, $2 key, $3 digest of the request, $4 how many seconds a key is good for.
-- No row: the key is taken. One that is being taken is waited for; one that is too old is taken anew.
INSERT INTO matins.idempotency_key AS taken (owner, key, request) VALUES ($1, $2, $3)
ON CONFLICT (owner, key) DO UPDATE
    SET request = excluded.request, response = NULL, run_id = NULL, reply = NULL,
        created_at = excluded.created_at
    WHERE taken.created_at < matins.now() - make_interval(secs => $4::double precision)
RETURNING key;

-- name: get_key :one
-- $1 owner, $2 key
SELECT request, response, reply FROM matins.idempotency_key WHERE owner = $1 AND key = $2;

-- name: update_key :exec
-- $1 owner, $2 key, $3 what the request is answered, $4 the run whose result is the answer, or null
UPDATE matins.idempotency_key SET response = $3, run_id = $4 WHERE owner = $1 AND key = $2;

-- name: update_reply :exec
-- $1 run_id, $2 its result
UPDATE matins.idempotency_key SET reply = $2 WHERE run_id = $1;

-- name: trim_keys :many
-- $1 age in seconds, $2 how many at the most
DELETE FROM matins.idempotency_key
WHERE ctid = ANY(ARRAY(SELECT ctid FROM matins.idempotency_key
                       WHERE created_at < matins.now() - make_interval(secs => $1::double precision)
                       LIMIT $2))
RETURNING key;
