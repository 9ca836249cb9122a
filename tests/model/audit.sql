-- Writes down whatever the database was left in, at the end of each transaction, that it may never be in.
CREATE SCHEMA audit;
CREATE TABLE audit.violation (thread_id uuid, what text);

CREATE FUNCTION audit.look(thread uuid) RETURNS void LANGUAGE sql AS $$
    INSERT INTO audit.violation
    SELECT t.thread_id, format('thread is %s with %s runs in flight', t.status, r.in_flight)
    FROM matins.thread AS t, LATERAL (
        SELECT count(*) AS in_flight FROM matins.run
        WHERE thread_id = t.thread_id AND status IN ('pending', 'running')) AS r
    WHERE t.thread_id = thread AND (t.status = 'busy') <> (r.in_flight > 0);
    INSERT INTO audit.violation
    SELECT thread, format('%s runs are running at once', count(*)) FROM matins.run
    WHERE thread_id = thread AND status = 'running' HAVING count(*) > 1
$$;

CREATE FUNCTION audit.on_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM audit.look(coalesce(NEW.thread_id, OLD.thread_id));
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON matins.run
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit.on_change();
CREATE CONSTRAINT TRIGGER audit AFTER UPDATE ON matins.thread
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit.on_change();

CREATE FUNCTION audit.on_checkpoint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.metadata ->> 'source' IN ('input', 'loop') AND NOT EXISTS (
        SELECT FROM matins.run
        WHERE run_id::text = NEW.metadata ->> 'run_id' AND attempt = (NEW.metadata ->> 'run_attempt')::integer
            AND status = 'running') THEN
        INSERT INTO audit.violation VALUES (NEW.thread_id::uuid, format(
            'attempt %s of run %s wrote a checkpoint and does not hold it',
            NEW.metadata ->> 'run_attempt', NEW.metadata ->> 'run_id'));
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER audit AFTER INSERT ON checkpoints FOR EACH ROW EXECUTE FUNCTION audit.on_checkpoint();

CREATE TABLE audit.stopped (run_id uuid, took interval);

CREATE FUNCTION audit.on_stopped() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit.stopped VALUES (OLD.run_id, matins.now() - OLD.stop_at);
    RETURN NULL;
END $$;

-- A run that was running when it was wished to stop: how long until it had ended, or was gone.
CREATE TRIGGER ended AFTER UPDATE ON matins.run FOR EACH ROW
    WHEN (OLD.stop_at IS NOT NULL AND NEW.status NOT IN ('pending', 'running')) EXECUTE FUNCTION audit.on_stopped();
CREATE TRIGGER undone AFTER DELETE ON matins.run FOR EACH ROW
    WHEN (OLD.stop_at IS NOT NULL) EXECUTE FUNCTION audit.on_stopped();
