-- The status a thread goes back to when what was in flight on it is gone without having written a state. It cannot be
-- told from the state alone: a thread that stopped at a breakpoint has no interrupts.

ALTER TABLE matins.thread ADD COLUMN resting_status text NOT NULL DEFAULT 'idle'
    CHECK (resting_status IN ('idle', 'interrupted', 'error'));
UPDATE matins.thread SET resting_status = CASE
    WHEN status <> 'busy' THEN status
    WHEN error IS NOT NULL THEN 'error'
    WHEN interrupts::text <> '{}' THEN 'interrupted'
    ELSE 'idle' END;
