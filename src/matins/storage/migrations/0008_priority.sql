-- Priorities that the user's `priority.assign` gives. A thread keeps the one of its first run, and a cron the one for
-- the threads that it makes: firing asks no user code. -5 comes first; it goes into run.priority a hundredfold.

ALTER TABLE matins.thread ADD COLUMN priority smallint CHECK (priority BETWEEN -5 AND 5);
ALTER TABLE matins.cron ADD COLUMN priority smallint CHECK (priority BETWEEN -5 AND 5);
