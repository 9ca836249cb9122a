-- Many threads are inserted at once when many crons are due at once: their tags are, too, and not thread by thread.
CREATE FUNCTION matins.threads_tagged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO matins.thread_tag (tag, thread_id)
    SELECT DISTINCT tag, thread_id FROM added CROSS JOIN LATERAL matins.tags(added.metadata) AS tag;
    RETURN NULL;
END $$;
DROP TRIGGER thread_tagged ON matins.thread;
CREATE TRIGGER threads_tagged AFTER INSERT ON matins.thread REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION matins.threads_tagged();
CREATE TRIGGER thread_untagged AFTER DELETE ON matins.thread
    FOR EACH ROW EXECUTE FUNCTION matins.thread_tagged();
