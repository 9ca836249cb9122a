-- All crons of the server held at once, each one's own state kept. A row is there while they are.

CREATE TABLE matins.cron_hold (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    reason   text NOT NULL,
    since    timestamptz NOT NULL DEFAULT matins.now()
);
