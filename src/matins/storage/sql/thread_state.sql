-- name: write_state :one
-- $1 thread_id, $2 values or null, $3 interrupts, $4 status. The caller holds the thread's row and no run is in flight.
UPDATE matins.thread
SET "values" = $2, interrupts = $3, status = $4, resting_status = $4, error = NULL,
    updated_at = matins.now(), state_updated_at = matins.now()
WHERE thread_id = $1
RETURNING followed_until > matins.now() AS is_followed;
