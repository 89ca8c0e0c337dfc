-- Orders that are taken back, sales with a window, a limit or a pause, and events beside `order.completed`. The release
-- before this one knows none of it: it sells whatever the window, the limit and the pause, and cannot take an order
-- back, so they are used once all programs are of this release.

-- Tables are locked in the order in which a batch uses them, or each of the two would wait for the other one.
ALTER TABLE products
    ADD COLUMN on_sale_from  timestamptz,
    ADD COLUMN on_sale_until timestamptz,
    -- For life; NULL: as many as there are.
    ADD COLUMN per_customer  bigint,
    -- How often a limit was put where there was none: which of the counts in `purchases` are complete. 0 with a limit:
    -- it is as old as the product, and every order was counted.
    ADD COLUMN limit_epoch   integer NOT NULL DEFAULT 0,
    ADD COLUMN paused_at     timestamptz,
    ADD CONSTRAINT products_sale_window CHECK (on_sale_from < on_sale_until),
    ADD CONSTRAINT products_per_customer_positive CHECK (per_customer > 0);
ALTER TABLE coupons ADD COLUMN paused_at timestamptz;

CREATE FUNCTION begin_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.per_customer IS NULL AND NEW.per_customer IS NOT NULL THEN
        NEW.limit_epoch := OLD.limit_epoch + 1;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER products_limit BEFORE UPDATE OF per_customer ON products
    FOR EACH ROW EXECUTE FUNCTION begin_limit();

-- An order is cancelled if it has a row here; orders themselves never change.
CREATE TABLE cancellations (
    order_id     bigint      NOT NULL CONSTRAINT cancellations_pkey PRIMARY KEY
        CONSTRAINT cancellations_order_id_fkey REFERENCES orders (id),
    job_id       uuid        NOT NULL CONSTRAINT cancellations_job_id_key UNIQUE,
    reason       text,
    -- An operator cancelled it, not the customer.
    by_operator  boolean     NOT NULL,
    submitted_at timestamptz NOT NULL,
    cancelled_at timestamptz NOT NULL,
    CONSTRAINT cancellations_reason CHECK (char_length(reason) BETWEEN 1 AND 500)
);

-- How many units of a product a customer has by orders that were not cancelled: of products with a limit, and of
-- customers who ordered since it was put. One whose epoch is not the product's misses orders from when there was none.
CREATE TABLE purchases (
    user_id     bigint  NOT NULL,
    product_id  bigint  NOT NULL,
    limit_epoch integer NOT NULL,
    quantity    bigint  NOT NULL,
    CONSTRAINT purchases_pkey PRIMARY KEY (user_id, product_id),
    CONSTRAINT purchases_quantity_not_negative CHECK (quantity >= 0)
);

-- A row holds events of one type, up to as many as one message holds: a line of JSON for each.
ALTER TABLE outbox RENAME TO outbox_parcels;
ALTER TABLE outbox_parcels RENAME CONSTRAINT outbox_pkey TO outbox_parcels_pkey;
ALTER TABLE outbox_parcels RENAME CONSTRAINT outbox_event_id_key TO outbox_parcels_event_id_key;
ALTER TABLE outbox_parcels
    ADD COLUMN type   text    NOT NULL DEFAULT 'order.completed',
    ADD COLUMN events integer NOT NULL DEFAULT 1,
    ADD CONSTRAINT outbox_parcels_events_positive CHECK (events > 0);
-- Written once and read once: what compressing them takes counts, not what it saves. Not every server is built with it.
DO $$
BEGIN
    ALTER TABLE outbox_parcels ALTER COLUMN event SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END
$$;
-- The release before this one writes and relays completed orders only: it is shown nothing else, since it would tell
-- any row to those who wait for completed orders. A later migration drops it.
CREATE VIEW outbox AS
    SELECT id, event_id, event, created_at FROM outbox_parcels WHERE type = 'order.completed';
