-- name: find_expired :many
-- $1 the default in minutes or null, $2 limit. The longest expired first of those with a time to live of their own,
-- then of the others. A look: lock_expired and threads_in_use decide.
(SELECT thread_id FROM matins.thread AS t
 WHERE expires_at <= (SELECT matins.now()) AND status <> 'busy'
   AND NOT EXISTS (SELECT FROM matins.cron AS c
                   WHERE c.thread_id = t.thread_id AND c.enabled AND c.next_run_date IS NOT NULL)
 ORDER BY expires_at LIMIT $2)
UNION ALL
(SELECT thread_id FROM matins.thread AS t
 WHERE ttl_minutes IS NULL AND swept_at IS NULL AND status <> 'busy'
   AND updated_at <= (SELECT matins.now() - make_interval(secs => $1::double precision * 60))
   AND NOT EXISTS (SELECT FROM matins.cron AS c
                   WHERE c.thread_id = t.thread_id AND c.enabled AND c.next_run_date IS NOT NULL)
 ORDER BY updated_at LIMIT $2)
LIMIT $2;

-- name: lock_expired :many
-- $1 thread_ids, $2 the default's strategy or null, $3 the default in minutes or null. Those that are still expired and
-- that nobody holds, locked.
SELECT thread_id, coalesce(ttl_strategy, $2::text) AS strategy FROM matins.thread
WHERE thread_id = ANY($1::uuid[])
  AND (expires_at <= matins.now()
       OR ttl_minutes IS NULL AND swept_at IS NULL
          AND updated_at <= matins.now() - make_interval(secs => $3::double precision * 60))
FOR UPDATE SKIP LOCKED;

-- name: threads_in_use :many
-- $1 thread_ids. Those with a run in flight, or with a cron that will fire. In a statement of its own, after their rows
-- were locked: an older snapshot would miss what was committed before.
SELECT thread_id FROM matins.run WHERE thread_id = ANY($1::uuid[]) AND status IN ('pending', 'running')
UNION
SELECT thread_id FROM matins.cron
WHERE thread_id = ANY($1::uuid[]) AND enabled AND next_run_date IS NOT NULL;

-- name: mark_swept :exec
-- $1 thread_ids. Not looked at again until they are used.
UPDATE matins.thread SET swept_at = matins.now(), expires_at = NULL WHERE thread_id = ANY($1::uuid[]);
