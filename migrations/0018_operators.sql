-- What operators and support look up.

-- What operators changed: a row for each change, in its transaction.
CREATE TABLE audit_log (
    id         bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_log_pkey PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    -- The operator. No foreign key: a token may name a user whom nobody made.
    who        bigint      NOT NULL,
    action     text        NOT NULL,
    -- The path of what was changed below /api/admin.
    target     text        NOT NULL,
    -- Of what user `before` and `after` tell, if of one: it goes with the user's personal data.
    person     bigint,
    before     jsonb,
    after      jsonb,
    request_id text
);
CREATE INDEX audit_log_by_time ON audit_log (at DESC, id DESC);
CREATE INDEX audit_log_by_operator ON audit_log (who, at DESC, id DESC);
CREATE INDEX audit_log_by_action ON audit_log (action, at DESC, id DESC);
CREATE INDEX audit_log_by_target ON audit_log (target, at DESC, id DESC);
CREATE INDEX audit_log_by_person ON audit_log (person) WHERE person IS NOT NULL;
CREATE FUNCTION refuse_change_of_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of "%": what was done stays told', TG_OP, TG_TABLE_NAME;
END
$$;
CREATE TRIGGER audit_log_stays BEFORE DELETE OR TRUNCATE OR UPDATE OF id, at, who, action, target, person, request_id ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_log();

-- Orders that used a coupon of a campaign, and their jobs.
CREATE INDEX orders_by_coupon ON orders (coupon_id, job_id) WHERE coupon_id IS NOT NULL;

-- What a job was about, and how it was taken up; unknown of jobs that a release before this one settled.
ALTER TABLE job_outcomes
    -- The coupon or product that decided in which line it stood by default: the lowest one.
    ADD COLUMN subject     bigint,
    -- When the transaction began that settled it, and with how many others.
    ADD COLUMN taken_up_at timestamptz,
    ADD COLUMN batch_jobs  integer,
    -- Generation and name of the line.
    ADD COLUMN line        text,
    -- Of the request's trace context, where it had one.
    ADD COLUMN trace_id    uuid;
-- By what: each job stands in one of the two; and those that failed, which are few.
CREATE INDEX job_outcomes_by_coupon ON job_outcomes (subject, job_id) WHERE kind = 'issue-coupon' AND subject IS NOT NULL;
CREATE INDEX job_outcomes_by_product ON job_outcomes (subject, job_id) WHERE kind <> 'issue-coupon' AND subject IS NOT NULL;
CREATE INDEX job_outcomes_failed ON job_outcomes (job_id) WHERE status = 'failed';

-- By whom, of the jobs that nothing else leads to: not a key, nor what came of it. An index in the order of the users
-- costs as much as all the rest of an outcome.
CREATE INDEX job_outcomes_by_user ON job_outcomes (user_id, job_id)
    WHERE idempotency_key IS NULL AND (status <> 'succeeded' OR kind = 'cancel-order');
-- The job that issued it; unknown of those that a release before this one issued.
ALTER TABLE user_coupons ADD COLUMN issued_by uuid;

-- What a job names beside its subject: the other products and the coupon of an order (but where that is placed: it has its
-- coupon itself), the order that is to be cancelled.
CREATE TABLE job_mentions (
    job_id uuid   NOT NULL,
    what   text   NOT NULL,
    id     bigint NOT NULL,
    CONSTRAINT job_mentions_pkey PRIMARY KEY (job_id, what, id),
    CONSTRAINT job_mentions_what CHECK (what IN ('coupon', 'product', 'order'))
);
CREATE INDEX job_mentions_by_id ON job_mentions (what, id, job_id);

-- Dead letters that were given another attempt: what is left of them.
CREATE TABLE redrives (
    id               bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT redrives_pkey PRIMARY KEY,
    job_id           uuid        NOT NULL,
    queue            text        NOT NULL,
    reason           text        NOT NULL,
    dead_lettered_at timestamptz NOT NULL,
    redriven_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX redrives_by_job ON redrives (job_id);
CREATE INDEX dead_letters_by_job ON dead_letters (job_id) WHERE job_id IS NOT NULL;
-- Those that nobody has dealt with: few, beside what is kept as a record.
CREATE INDEX dead_letters_waiting ON dead_letters (id) WHERE discarded_at IS NULL;

-- How many requests were answered without a job, since the line would have rejected them for certain: about, as the APIs tell
-- it every few seconds. Of coupons and products that there are.
CREATE TABLE early_refusals (
    family  text   NOT NULL,
    key     bigint NOT NULL,
    code    text   NOT NULL,
    refused bigint NOT NULL,
    CONSTRAINT early_refusals_pkey PRIMARY KEY (family, key, code)
)
-- Rewritten again and again while a sale is sold out.
WITH (fillfactor = 50);
