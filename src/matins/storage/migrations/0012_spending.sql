-- What each slot's run has spent, and how often it was tried again: a budget is a sum over the ledger. And webhooks that
-- tell of a cron, not of a run.

ALTER TABLE matins.run ADD COLUMN retries integer NOT NULL DEFAULT 0;   -- tries after an error that may pass

ALTER TABLE matins.cron_fire
    ADD COLUMN retries       integer NOT NULL DEFAULT 0,
    ADD COLUMN model_calls   integer NOT NULL DEFAULT 0,
    ADD COLUMN input_tokens  bigint NOT NULL DEFAULT 0,
    ADD COLUMN output_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN tokens        bigint NOT NULL DEFAULT 0,
    ADD COLUMN cost_usd      double precision NOT NULL DEFAULT 0,   -- of the calls whose price is known
    -- Which attempt's calls were added last, and how many: a transaction that is tried again adds them once.
    ADD COLUMN counted_attempt integer NOT NULL DEFAULT 0,
    ADD COLUMN counted_calls   integer NOT NULL DEFAULT 0;
CREATE INDEX cron_fire_runs ON matins.cron_fire (cron_id, recorded_at) WHERE run_id IS NOT NULL;

CREATE OR REPLACE FUNCTION matins.run_noted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        UPDATE matins.cron_fire SET status = 'deleted', ended_at = matins.now() WHERE run_id = OLD.run_id;
    ELSE
        UPDATE matins.cron_fire
        SET status = NEW.status, started_at = NEW.started_at, ended_at = NEW.ended_at, error = NEW.error,
            retries = NEW.retries
        WHERE run_id = NEW.run_id;
    END IF;
    RETURN NULL;
END
$$;

ALTER TABLE matins.webhook_delivery
    ALTER COLUMN run_id DROP NOT NULL,
    ADD COLUMN cron_id uuid,
    ADD CONSTRAINT webhook_delivery_of_a_run_or_a_cron CHECK (num_nonnulls(run_id, cron_id) = 1);
CREATE INDEX webhook_delivery_of_cron ON matins.webhook_delivery (cron_id) WHERE cron_id IS NOT NULL;
