-- The ledger says what became of each slot's run, and goes on saying it when run, thread and cron are gone.

ALTER TABLE matins.cron_fire
    ADD COLUMN status     text CHECK (status IN ('pending', 'running', 'success', 'error', 'timeout', 'interrupted',
                                                 'deleted')),
    ADD COLUMN started_at timestamptz,
    ADD COLUMN ended_at   timestamptz,
    ADD COLUMN error      json,
    ADD COLUMN output     text;   -- the last words of a run that ended, cut

UPDATE matins.cron_fire AS f
SET status = coalesce(r.status, 'deleted'), started_at = r.started_at, ended_at = r.ended_at, error = r.error
FROM matins.cron_fire AS fired LEFT JOIN matins.run AS r USING (run_id)
WHERE f.run_id IS NOT NULL AND fired.cron_id = f.cron_id AND fired.scheduled_for = f.scheduled_for;

ALTER TABLE matins.cron_fire
    ADD CONSTRAINT cron_fire_status_when_fired CHECK ((run_id IS NOT NULL) = (status IS NOT NULL));
CREATE INDEX cron_fire_success ON matins.cron_fire (cron_id, scheduled_for) WHERE status = 'success';

-- Whatever changes a cron's run, in whichever statement, is on record with it.
CREATE FUNCTION matins.run_noted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        UPDATE matins.cron_fire SET status = 'deleted', ended_at = matins.now() WHERE run_id = OLD.run_id;
    ELSE
        UPDATE matins.cron_fire
        SET status = NEW.status, started_at = NEW.started_at, ended_at = NEW.ended_at, error = NEW.error
        WHERE run_id = NEW.run_id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER run_noted AFTER UPDATE OF status ON matins.run
    FOR EACH ROW WHEN (NEW.cron_id IS NOT NULL AND NEW.status IS DISTINCT FROM OLD.status)
    EXECUTE FUNCTION matins.run_noted();
CREATE TRIGGER run_gone AFTER DELETE ON matins.run
    FOR EACH ROW WHEN (OLD.cron_id IS NOT NULL AND OLD.status IN ('pending', 'running'))
    EXECUTE FUNCTION matins.run_noted();
