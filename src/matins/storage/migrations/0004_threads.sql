-- Threads: when they are swept, and counting them by a key of their metadata.

-- A thread's time to live is counted from its last use, and whatever uses a thread moves its updated_at: a run that
-- is created or ends, a state that is written, metadata. Here rather than in each statement that does it.
ALTER TABLE matins.thread ADD COLUMN swept_at timestamptz;   -- pruned, or not to be pruned, and not used since
CREATE FUNCTION matins.thread_used() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.expires_at := NEW.updated_at + make_interval(secs => NEW.ttl_minutes * 60);
    NEW.swept_at := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER thread_used BEFORE UPDATE OF updated_at ON matins.thread
    FOR EACH ROW WHEN (NEW.ttl_minutes IS NOT NULL OR NEW.swept_at IS NOT NULL)
    EXECUTE FUNCTION matins.thread_used();
-- Those that the default of langgraph.json applies to; what was swept is not looked at again.
CREATE INDEX thread_unswept ON matins.thread (updated_at) WHERE ttl_minutes IS NULL AND swept_at IS NULL;

-- One row for each key of a thread's metadata with a plain value. The GIN index finds threads, but counting what it
-- finds means visiting each one's row, wherever that lies: 80 ms for 10,000. This is counted in its index alone, in 4.
CREATE TABLE matins.thread_tag (
    tag       bigint NOT NULL,   -- a hash of the key with its value
    thread_id uuid NOT NULL      -- no foreign key: the triggers below keep it, without another index
);
-- Not jsonb_hash_extended, to which 1 and -1 are the same. Equal numbers have equal texts without zeros at the end.
CREATE FUNCTION matins.tags(metadata jsonb) RETURNS SETOF bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT hashtextextended(jsonb_build_object(key, CASE jsonb_typeof(value)
        WHEN 'number' THEN to_jsonb(trim_scale(value::numeric)) ELSE value END)::text, 0)
    FROM jsonb_each(metadata) WHERE jsonb_typeof(value) NOT IN ('object', 'array')
$$;
CREATE FUNCTION matins.thread_tagged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM matins.thread_tag WHERE thread_id = OLD.thread_id AND tag = ANY(ARRAY(
            SELECT matins.tags(OLD.metadata)
            EXCEPT SELECT matins.tags(NEW.metadata) WHERE TG_OP = 'UPDATE'));
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO matins.thread_tag (tag, thread_id)
        SELECT tag, NEW.thread_id FROM matins.tags(NEW.metadata) AS tag
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER thread_tagged AFTER INSERT OR DELETE ON matins.thread
    FOR EACH ROW EXECUTE FUNCTION matins.thread_tagged();
CREATE TRIGGER thread_retagged AFTER UPDATE OF metadata ON matins.thread
    FOR EACH ROW WHEN (OLD.metadata IS DISTINCT FROM NEW.metadata) EXECUTE FUNCTION matins.thread_tagged();
-- Half a minute for a million threads, in which none is written.
INSERT INTO matins.thread_tag (tag, thread_id)
SELECT tag, thread_id FROM matins.thread CROSS JOIN LATERAL matins.tags(metadata) AS tag;
ALTER TABLE matins.thread_tag ADD PRIMARY KEY (tag, thread_id);

-- What a search shows of a thread beside itself: paths is {"alias": ["values", "messages", "-1"]}.
CREATE FUNCTION matins.extracted(paths jsonb, "values" jsonb, metadata jsonb, config json, interrupts json)
RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_object_agg(alias, CASE path ->> 0 WHEN 'values' THEN "values" WHEN 'metadata' THEN metadata
                                                   WHEN 'config' THEN config::jsonb ELSE interrupts::jsonb END
                                   #> ARRAY(SELECT jsonb_array_elements_text(path - 0)))
    FROM jsonb_each(paths) AS asked (alias, path)
$$;
