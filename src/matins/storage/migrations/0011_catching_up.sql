-- Slots that are caught up wait their turn on record, so that a downtime is followed by no stampede.

ALTER TABLE matins.cron_fire DROP CONSTRAINT cron_fire_outcome_check;
ALTER TABLE matins.cron_fire ADD CONSTRAINT cron_fire_outcome_check
    CHECK (outcome IN ('fired', 'missed', 'skipped', 'failed', 'waiting'));
CREATE INDEX cron_fire_waiting ON matins.cron_fire (cron_id, scheduled_for) WHERE outcome = 'waiting';
CREATE INDEX cron_fire_catching_up ON matins.cron_fire (run_id)
    WHERE trigger IN ('catch_up', 'backfill') AND status IN ('pending', 'running');

-- What a cron has under way: its next slot asks.
CREATE INDEX run_of_cron_in_flight ON matins.run (cron_id, seq)
    WHERE cron_id IS NOT NULL AND status IN ('pending', 'running');
