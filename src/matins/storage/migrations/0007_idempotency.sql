-- A run whose creation is answered by its result: what that was, when the run is gone with its thread.
ALTER TABLE matins.idempotency_key ADD COLUMN run_id uuid, ADD COLUMN reply json;
CREATE INDEX idempotency_key_run ON matins.idempotency_key (run_id) WHERE run_id IS NOT NULL;

-- Keys are forgotten by age.
CREATE INDEX idempotency_key_created ON matins.idempotency_key (created_at);
