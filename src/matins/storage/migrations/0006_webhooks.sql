-- Webhooks: a delivery belongs to the host that it goes to, so that one that hangs holds up no other, and to the
-- thread that it goes with. Nothing has written to the table before.

ALTER TABLE matins.webhook_delivery
    ADD COLUMN host text NOT NULL DEFAULT '',
    ADD COLUMN thread_id uuid;   -- null for a temporary run: its thread is gone, its report is still to be delivered

-- A run reports once, whatever ends it.
CREATE UNIQUE INDEX webhook_delivery_run ON matins.webhook_delivery (run_id);
CREATE INDEX webhook_delivery_of_host ON matins.webhook_delivery (host, next_attempt_at)
    WHERE delivered_at IS NULL AND dead_at IS NULL;
CREATE INDEX webhook_delivery_of_thread ON matins.webhook_delivery (thread_id) WHERE thread_id IS NOT NULL;
CREATE INDEX webhook_delivery_created ON matins.webhook_delivery (created_at DESC, delivery_id DESC);
CREATE INDEX webhook_delivery_delivered ON matins.webhook_delivery (delivered_at) WHERE delivered_at IS NOT NULL;
CREATE INDEX webhook_delivery_dead ON matins.webhook_delivery (dead_at) WHERE dead_at IS NOT NULL;
DROP INDEX matins.webhook_delivery_due;
