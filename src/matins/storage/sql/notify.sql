-- name: send_hint :one
-- $1 channel, $2 text. What may be lost need not be waited for on a disk.
SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2);
