-- When a cron's run last was a success is asked by whoever watches the server.

CREATE INDEX cron_fire_ended_well ON matins.cron_fire (ended_at) WHERE status = 'success';
