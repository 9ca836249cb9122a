-- name: insert_assistant :one
-- $1 assistant_id, $2 owner, $3 graph_id, $4 name, $5 description, $6 config, $7 context, $8 metadata
WITH inserted AS (
    INSERT INTO matins.assistant (assistant_id, owner, graph_id, name, description, config, context, metadata)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (assistant_id) DO NOTHING
    RETURNING *
), version AS (
    INSERT INTO matins.assistant_version (assistant_id, version, graph_id, name, description, config, context, metadata,
                                          created_at)
    SELECT assistant_id, version, graph_id, name, description, config, context, metadata, created_at FROM inserted
)
SELECT * FROM inserted;

-- name: refresh_assistant :exec
-- $1 assistant_id, $2 name, $3 description or null. A system assistant that nobody has changed follows its graph.
WITH refreshed AS (
    UPDATE matins.assistant SET name = $2, description = $3, updated_at = matins.now()
    WHERE assistant_id = $1 AND version = 1 AND metadata @> '{"created_by": "system"}'
      AND (name, description) IS DISTINCT FROM ($2::text, $3::text)
    RETURNING assistant_id, version
)
UPDATE matins.assistant_version AS v SET name = $2, description = $3
FROM refreshed WHERE v.assistant_id = refreshed.assistant_id AND v.version = refreshed.version;

-- name: get_assistant :one
-- $1 assistant_id, $2 owner or null. System assistants belong to nobody and are everyone's to use.
SELECT * FROM matins.assistant
WHERE assistant_id = $1 AND ($2::text IS NULL OR owner = $2 OR metadata @> '{"created_by": "system"}');

-- name: lock_assistant :one
-- $1 assistant_id, $2 owner or null
SELECT * FROM matins.assistant WHERE assistant_id = $1 AND ($2::text IS NULL OR owner = $2) FOR UPDATE;

-- name: update_assistant :one
-- $1 assistant_id, $2 graph_id, $3 name, $4 description, $5 config, $6 context, $7 metadata. The caller holds the row.
-- A version of its own, one after the highest, whichever is active.
WITH made AS (
    INSERT INTO matins.assistant_version (assistant_id, version, graph_id, name, description, config, context, metadata)
    SELECT $1, max(version) + 1, $2, $3, $4, $5, $6, $7 FROM matins.assistant_version WHERE assistant_id = $1
    RETURNING *
)
UPDATE matins.assistant AS a
SET version = made.version, graph_id = made.graph_id, name = made.name, description = made.description,
    config = made.config, context = made.context, metadata = made.metadata, updated_at = made.created_at
FROM made WHERE a.assistant_id = made.assistant_id
RETURNING a.*;

-- name: restore_assistant :one
-- $1 assistant_id, $2 version. The caller holds the row. No row: there is no such version.
UPDATE matins.assistant AS a
SET version = v.version, graph_id = v.graph_id, name = v.name, description = v.description,
    config = v.config, context = v.context, metadata = v.metadata, updated_at = matins.now()
FROM matins.assistant_version AS v
WHERE a.assistant_id = $1 AND v.assistant_id = $1 AND v.version = $2
RETURNING a.*;

-- name: list_assistant_versions :many
-- $1 assistant_id, $2 metadata or null, $3 limit, $4 offset
SELECT * FROM matins.assistant_version
WHERE assistant_id = $1 AND ($2::jsonb IS NULL OR metadata @> $2)
ORDER BY version DESC
LIMIT $3 OFFSET $4;

-- name: search_assistants :many
-- $1 owner or null, $2 graph_id or null, $3 name part or null, $4 metadata or null, $5 limit, $6 offset
SELECT * FROM matins.assistant
WHERE ($1::text IS NULL OR owner = $1 OR metadata @> '{"created_by": "system"}')
  AND ($2::text IS NULL OR graph_id = $2)
  AND ($3::text IS NULL OR strpos(lower(name), lower($3)) > 0)
  AND ($4::jsonb IS NULL OR metadata @> $4)
ORDER BY {order}
LIMIT $5 OFFSET $6;

-- name: count_assistants :one
-- $1 owner or null, $2 graph_id or null, $3 name part or null, $4 metadata or null, $5 the most to count or null
SELECT count(*) FROM (
    SELECT 1 FROM matins.assistant
    WHERE ($1::text IS NULL OR owner = $1 OR metadata @> '{"created_by": "system"}')
      AND ($2::text IS NULL OR graph_id = $2)
      AND ($3::text IS NULL OR strpos(lower(name), lower($3)) > 0)
      AND ($4::jsonb IS NULL OR metadata @> $4)
    LIMIT $5
) AS matching;

-- name: delete_assistant :one
-- $1 assistant_id, $2 owner or null
DELETE FROM matins.assistant WHERE assistant_id = $1 AND ($2::text IS NULL OR owner = $2)
RETURNING assistant_id;
