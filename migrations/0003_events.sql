-- Events of completed orders, and the statistics made from them.

-- Written in the transaction of the order, deleted once the broker has confirmed the event.
CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT outbox_pkey PRIMARY KEY,
    event_id   uuid        NOT NULL CONSTRAINT outbox_event_id_key UNIQUE,
    -- The CloudEvent as it will travel.
    event      text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Which events a consumer has counted, in the transaction of their effect.
CREATE TABLE event_inbox (
    consumer   text        NOT NULL,
    event_id   uuid        NOT NULL,
    counted_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT event_inbox_pkey PRIMARY KEY (consumer, event_id)
);

-- What was sold of a product on a day of the business time zone.
CREATE TABLE product_sales (
    day        date   NOT NULL,
    product_id bigint NOT NULL,
    quantity   bigint NOT NULL,
    amount     bigint NOT NULL,
    CONSTRAINT product_sales_pkey PRIMARY KEY (day, product_id)
);

-- Which daily job ran for which day: one of several workers runs it.
CREATE TABLE daily_runs (
    job    text        NOT NULL,
    day    date        NOT NULL,
    ran_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT daily_runs_pkey PRIMARY KEY (job, day)
);

CREATE INDEX orders_by_completion ON orders (completed_at);
