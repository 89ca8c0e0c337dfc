-- How long a line is: what was accepted and is not settled. Facts that survive those who serve it: a worker
-- that hangs tells nothing, and what the broker gave it the broker does not tell either.

-- Jobs that were put into a line, by when: about a hundred rows tell of all that waits, however long it does
-- (the API widens its buckets with the age of the line). What is settled is folded into
-- line_reports.folded.
CREATE TABLE line_arrivals (
    kind       text        NOT NULL,
    generation integer     NOT NULL,
    line       text        NOT NULL,
    bucket     timestamptz NOT NULL,
    -- When the first and the last of them were submitted.
    first_at   timestamptz NOT NULL,
    last_at    timestamptz NOT NULL,
    jobs       bigint      NOT NULL,
    CONSTRAINT line_arrivals_pkey PRIMARY KEY (kind, generation, line, bucket),
    CONSTRAINT line_arrivals_order CHECK (first_at <= last_at),
    CONSTRAINT line_arrivals_jobs CHECK (jobs > 0)
);

-- Jobs of a line that have their outcome, counted in the transaction that gave it to them.
CREATE TABLE line_progress (
    kind       text    NOT NULL,
    generation integer NOT NULL,
    line       text    NOT NULL,
    settled    bigint  NOT NULL,
    -- When the last of them in time was submitted.
    until      timestamptz,
    CONSTRAINT line_progress_pkey PRIMARY KEY (kind, generation, line)
)
-- Rewritten with every batch.
WITH (fillfactor = 50);

-- What was settled so far counts as folded: nothing waits by what is known.
INSERT INTO line_progress (kind, generation, line, settled) SELECT kind, generation, line, settled FROM line_reports;
ALTER TABLE line_reports
    ADD COLUMN folded bigint NOT NULL DEFAULT 0,
    -- The batch in hand, and since when.
    ADD COLUMN jobs_in_hand integer NOT NULL DEFAULT 0,
    ADD COLUMN in_hand_seconds double precision,
    -- The most jobs in a batch at present; and what one takes: so long in any case, and so much for each job.
    ADD COLUMN batch_limit integer NOT NULL DEFAULT 4000,
    ADD COLUMN batch_seconds double precision NOT NULL DEFAULT 0,
    ADD COLUMN job_seconds double precision NOT NULL DEFAULT 0;
UPDATE line_reports SET folded = settled;
-- Written by the version before only, which may still run: what its workers settle is counted as they tell it.
ALTER TABLE line_reports
    ALTER COLUMN settled SET DEFAULT 0,
    ALTER COLUMN settled_per_second SET DEFAULT 0;
CREATE FUNCTION count_settled_by_older_workers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO line_progress (kind, generation, line, settled)
    VALUES (NEW.kind, NEW.generation, NEW.line, NEW.settled - OLD.settled)
    ON CONFLICT ON CONSTRAINT line_progress_pkey DO UPDATE SET settled = line_progress.settled + excluded.settled;
    RETURN NULL;
END
$$;
CREATE TRIGGER line_reports_of_older_workers AFTER UPDATE ON line_reports
    FOR EACH ROW WHEN (NEW.settled > OLD.settled) EXECUTE FUNCTION count_settled_by_older_workers();

-- What an API told last: what it tells again, because it did not hear that it was understood, counts once.
CREATE TABLE line_tellers (
    api      uuid        NOT NULL CONSTRAINT line_tellers_pkey PRIMARY KEY,
    sequence bigint      NOT NULL,
    told_at  timestamptz NOT NULL DEFAULT now()
);
