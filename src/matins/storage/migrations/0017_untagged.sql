-- A thread that is made for a cron's run gets its tags when it is written for the first time after that: when the run
-- ends, most of the time. Ten thousand of them at once are made faster, and those that go with their run never have any.
ALTER TABLE matins.thread ADD COLUMN is_tagged boolean NOT NULL DEFAULT true;
CREATE INDEX thread_not_tagged ON matins.thread (thread_id) WHERE NOT is_tagged;

CREATE OR REPLACE FUNCTION matins.threads_tagged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO matins.thread_tag (tag, thread_id)
    SELECT DISTINCT tag, thread_id FROM added CROSS JOIN LATERAL matins.tags(added.metadata) AS tag
    WHERE added.is_tagged;
    RETURN NULL;
END $$;

CREATE FUNCTION matins.thread_tagged_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO matins.thread_tag (tag, thread_id)
    SELECT tag, NEW.thread_id FROM matins.tags(NEW.metadata) AS tag
    ON CONFLICT DO NOTHING;
    NEW.is_tagged := true;
    RETURN NEW;
END $$;
CREATE TRIGGER thread_tagged_late BEFORE UPDATE OF status, metadata ON matins.thread
    FOR EACH ROW WHEN (NOT OLD.is_tagged) EXECUTE FUNCTION matins.thread_tagged_late();

DROP TRIGGER thread_untagged ON matins.thread;
CREATE TRIGGER thread_untagged AFTER DELETE ON matins.thread
    FOR EACH ROW WHEN (OLD.is_tagged) EXECUTE FUNCTION matins.thread_tagged();
