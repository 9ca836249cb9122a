-- Crons as code: the project declares them under keys, and each row keeps the declaration that was applied last.

ALTER TABLE matins.cron
    ADD COLUMN key      text,
    ADD COLUMN declared json,   -- null with a key: it is declared no longer
    ADD CONSTRAINT cron_declared_under_a_key CHECK (declared IS NULL OR key IS NOT NULL);
CREATE UNIQUE INDEX cron_key ON matins.cron (key) WHERE key IS NOT NULL;
