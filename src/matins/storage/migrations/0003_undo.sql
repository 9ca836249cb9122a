-- A run that goes on from a checkpoint of another run writes onto it: the answer to an interrupt, what its first nodes
-- wrote. What stood there before is kept here until the run has ended, so that a rollback can put it back.

CREATE TABLE matins.run_undo (
    run_id        uuid NOT NULL REFERENCES matins.run ON DELETE CASCADE,
    checkpoint_ns text NOT NULL,
    checkpoint_id text NOT NULL,
    task_id       text NOT NULL,
    idx           integer NOT NULL,
    -- What stood there; all of them null when nothing did.
    task_path     text,
    channel       text,
    type          text,
    blob          bytea,
    PRIMARY KEY (run_id, checkpoint_ns, checkpoint_id, task_id, idx)
);
