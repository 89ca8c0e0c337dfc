-- Which line a job stands in, who serves it, and how it fares.

-- What operators want of a kind; its workers bring it about.
CREATE TABLE routing (
    kind          text    NOT NULL CONSTRAINT routing_pkey PRIMARY KEY,
    partitions    integer NOT NULL DEFAULT 16,
    -- The most messages in one line: beyond it the broker refuses. In a storm a message is a parcel
    -- of up to 64 jobs.
    line_capacity integer NOT NULL DEFAULT 100000,
    -- The lines that take new jobs at present; 0 before a worker came for the first time.
    generation    integer NOT NULL DEFAULT 0,
    CONSTRAINT routing_partitions CHECK (partitions BETWEEN 1 AND 256),
    CONSTRAINT routing_line_capacity CHECK (line_capacity > 0)
);
INSERT INTO routing (kind) VALUES ('issue-coupon'), ('place-order');

-- Keys with a line of their own.
CREATE TABLE pins (
    kind       text        NOT NULL CONSTRAINT pins_kind_fkey REFERENCES routing (kind),
    key        bigint      NOT NULL,
    -- Stands for the key in job ids.
    number     integer     NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pins_pkey PRIMARY KEY (kind, key),
    CONSTRAINT pins_number_key UNIQUE (kind, number),
    CONSTRAINT pins_number_in_range CHECK (number BETWEEN 0 AND 62)
);

-- A worker process and kind, for as long as it says so.
CREATE TABLE workers (
    id         uuid        NOT NULL CONSTRAINT workers_pkey PRIMARY KEY,
    kind       text        NOT NULL,
    -- For operators: host and process.
    name       text        NOT NULL,
    expires_at timestamptz NOT NULL
);

-- The lines, and whose each of them is. A lease ends when its owner's row in workers does, so that
-- prolonging it never waits for a batch, which holds the row of its line.
CREATE TABLE partition_leases (
    kind       text    NOT NULL,
    generation integer NOT NULL,
    line       text    NOT NULL,
    -- How many partitions its generation has.
    partitions integer NOT NULL,
    -- What its queue was declared with; a broker refuses to declare it anew with another.
    capacity   integer NOT NULL,
    owner      uuid,
    -- Counts up with every owner: a batch commits only under the epoch it was begun in.
    epoch      bigint  NOT NULL DEFAULT 0,
    -- Its life: consumed from, closed to publishers, the last message sent, that message seen.
    opened_at  timestamptz,
    closed_at  timestamptz,
    ended_at   timestamptz,
    drained_at timestamptz,
    CONSTRAINT partition_leases_pkey PRIMARY KEY (kind, generation, line),
    CONSTRAINT partition_leases_life CHECK (
        (ended_at IS NULL OR closed_at IS NOT NULL) AND (drained_at IS NULL OR ended_at IS NOT NULL)
    )
)
-- Locked by every batch.
WITH (fillfactor = 50);

-- How a line fares, as its owner sees it.
CREATE TABLE line_reports (
    kind               text             NOT NULL,
    generation         integer          NOT NULL,
    line               text             NOT NULL,
    -- Messages and jobs in the consumer's hands.
    in_hand            integer          NOT NULL,
    -- Jobs settled since the line was opened, duplicates included.
    settled            bigint           NOT NULL,
    settled_per_second double precision NOT NULL,
    jobs_per_message   double precision NOT NULL,
    -- When the job that it took up last was submitted: who waits came later.
    head_at            timestamptz,
    -- When it last settled something, or saw its canary.
    progress_at        timestamptz      NOT NULL,
    -- The busiest keys: [{"key": …, "perSecond": …}].
    hottest            jsonb            NOT NULL,
    reported_at        timestamptz      NOT NULL,
    CONSTRAINT line_reports_pkey PRIMARY KEY (kind, generation, line)
)
WITH (fillfactor = 50);

-- An operator wants another attempt: the workers make it.
ALTER TABLE dead_letters
    ADD COLUMN redrive_requested_at timestamptz,
    -- An operator has seen it, and it shall be no more than a record.
    ADD COLUMN discarded_at timestamptz,
    -- W3C trace context of the request, where it had one.
    ADD COLUMN trace text;
CREATE INDEX dead_letters_to_redrive ON dead_letters (id) WHERE redrive_requested_at IS NOT NULL;
-- A failed job that runs again keeps its outcome until it has another one.
ALTER TABLE job_outcomes
    ADD COLUMN redriven boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT job_outcomes_redriven CHECK (NOT redriven OR status = 'failed');
