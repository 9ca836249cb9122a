-- Keys are forgotten by age.
CREATE INDEX idempotency_key_created ON matins.idempotency_key (created_at);
