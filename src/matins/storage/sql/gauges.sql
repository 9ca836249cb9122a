-- name: read_gauges :one
-- $1 how many runs are counted at most. The database's clock, when the next cron is due, when a cron's run last was a
-- success, and what runs wait or are under way. Each part is the end of an index, or a bounded stretch of one.
SELECT matins.now() AS now,
       (SELECT min(due_at) FROM matins.cron WHERE enabled) AS due_at,
       (SELECT max(ended_at) FROM matins.cron_fire WHERE status = 'success') AS last_success,
       (SELECT count(*) FROM (SELECT FROM matins.run WHERE status = 'pending' LIMIT $1) AS found) AS pending,
       (SELECT count(*) FROM (SELECT FROM matins.run WHERE status = 'running' LIMIT $1) AS found) AS running;

-- name: count_crons_by_state :one
-- Reads every cron.
SELECT count(*) FILTER (WHERE enabled) AS enabled, count(*) FILTER (WHERE NOT enabled) AS paused FROM matins.cron;
