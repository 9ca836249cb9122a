-- When the next slot fires, which with jitter is later than its date; and crons that fire once, which are done then.

ALTER TABLE matins.cron
    ADD COLUMN due_at  timestamptz,
    ADD COLUMN done_at timestamptz;
UPDATE matins.cron SET due_at = next_run_date WHERE next_run_date IS NOT NULL;
ALTER TABLE matins.cron
    ADD CONSTRAINT cron_due_when_dated
        CHECK ((due_at IS NULL) = (next_run_date IS NULL) AND due_at >= next_run_date),
    ADD CONSTRAINT cron_off_when_done CHECK (done_at IS NULL OR (NOT enabled AND next_run_date IS NULL));
DROP INDEX matins.cron_due;
CREATE INDEX cron_due ON matins.cron (due_at) WHERE enabled AND due_at IS NOT NULL;
CREATE INDEX cron_done ON matins.cron (done_at) WHERE done_at IS NOT NULL;

-- A node of the version before, which knows one date, may still write: then a slot fires at its date.
CREATE FUNCTION matins.cron_dated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.due_at := NEW.next_run_date;
    RETURN NEW;
END
$$;
CREATE TRIGGER cron_dated BEFORE UPDATE ON matins.cron
    FOR EACH ROW WHEN (NEW.next_run_date IS DISTINCT FROM OLD.next_run_date AND NEW.due_at IS NOT DISTINCT FROM OLD.due_at)
    EXECUTE FUNCTION matins.cron_dated();
CREATE TRIGGER cron_dated_first BEFORE INSERT ON matins.cron
    FOR EACH ROW WHEN (NEW.due_at IS NULL AND NEW.next_run_date IS NOT NULL)
    EXECUTE FUNCTION matins.cron_dated();
CREATE INDEX cron_fire_queued ON matins.cron_fire (cron_id, scheduled_for)
    WHERE outcome = 'waiting' AND trigger = 'schedule';   -- for its previous run
