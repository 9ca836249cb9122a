-- Who follows what from where. The node that carries a run keeps its events when somebody follows it on another node,
-- or follows its thread; events that nobody asked to keep are still written nowhere.

ALTER TABLE matins.run
    ADD COLUMN followed_on uuid[] NOT NULL DEFAULT '{}',   -- nodes on which somebody follows its events
    ADD COLUMN awaited_on  uuid[] NOT NULL DEFAULT '{}';   -- nodes on which somebody waits for its reply
-- A temporary run that is followed or awaited elsewhere leaves its thread behind for a moment, to be read.
CREATE INDEX run_left_behind ON matins.run (ended_at) WHERE temporary AND ended_at IS NOT NULL;

ALTER TABLE matins.thread ADD COLUMN followed_until timestamptz;   -- events of its runs are kept until then

ALTER TABLE matins.stream_event
    ADD COLUMN of_thread boolean NOT NULL DEFAULT false,   -- seen on the thread's stream alone, not on the run's
    ALTER COLUMN run_id DROP NOT NULL,                     -- a change of the state belongs to no run
    ALTER COLUMN attempt DROP NOT NULL;
