-- The references of 0006 and 0014 are looked up by key, whatever the planner believes of the tables. A table that was
-- analyzed when it had pages but no row is taken for one of a single row until it is analyzed again; a join with it read
-- all of an index per row that was added. What is asked for each row by itself cannot become a join, and what is
-- ordered by a key goes down the index that begins with it. Sessions of others than our programs, such as psql, would
-- read all of a table that was empty when they planned: that stays off.
CREATE OR REPLACE FUNCTION check_user_coupons() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF EXISTS (SELECT FROM added
                   WHERE (SELECT id FROM users WHERE id BETWEEN added.user_id AND added.user_id ORDER BY id LIMIT 1) IS NULL) THEN
            PERFORM refuse_reference('user_coupons_user_id_fkey');
        END IF;
        IF EXISTS (SELECT FROM (SELECT DISTINCT coupon_id FROM added) AS added
                   WHERE (SELECT id FROM coupons WHERE id BETWEEN added.coupon_id AND added.coupon_id ORDER BY id LIMIT 1) IS NULL) THEN
            PERFORM refuse_reference('user_coupons_coupon_id_fkey');
        END IF;
    END IF;
    IF EXISTS (SELECT FROM added
               WHERE order_id IS NOT NULL
                 AND (SELECT id FROM orders WHERE id BETWEEN added.order_id AND added.order_id ORDER BY id LIMIT 1) IS NULL) THEN
        PERFORM refuse_reference('user_coupons_order_id_fkey');
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION check_orders() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM added
               WHERE (SELECT id FROM users WHERE id BETWEEN added.user_id AND added.user_id ORDER BY id LIMIT 1) IS NULL) THEN
        PERFORM refuse_reference('orders_user_id_fkey');
    END IF;
    IF EXISTS (SELECT FROM (SELECT DISTINCT coupon_id FROM added) AS added
               WHERE coupon_id IS NOT NULL
                 AND (SELECT id FROM coupons WHERE id BETWEEN added.coupon_id AND added.coupon_id ORDER BY id LIMIT 1) IS NULL) THEN
        PERFORM refuse_reference('orders_coupon_id_fkey');
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION check_order_items() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM added
               WHERE (SELECT id FROM orders WHERE id BETWEEN added.order_id AND added.order_id ORDER BY id LIMIT 1) IS NULL) THEN
        PERFORM refuse_reference('order_items_order_id_fkey');
    END IF;
    IF EXISTS (SELECT FROM (SELECT DISTINCT product_id FROM added) AS added
               WHERE (SELECT id FROM products WHERE id BETWEEN added.product_id AND added.product_id ORDER BY id LIMIT 1) IS NULL) THEN
        PERFORM refuse_reference('order_items_product_id_fkey');
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION check_payments() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM added
               WHERE (SELECT id FROM orders WHERE id BETWEEN added.order_id AND added.order_id ORDER BY id LIMIT 1) IS NULL) THEN
        PERFORM refuse_reference('payments_order_id_fkey');
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION check_balance_transactions() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM added
               WHERE (SELECT id FROM users WHERE id BETWEEN added.user_id AND added.user_id ORDER BY id LIMIT 1) IS NULL) THEN
        PERFORM refuse_reference('balance_transactions_user_id_fkey');
    END IF;
    IF EXISTS (SELECT FROM added
               WHERE order_id IS NOT NULL
                 AND (SELECT id FROM orders WHERE id BETWEEN added.order_id AND added.order_id ORDER BY id LIMIT 1) IS NULL) THEN
        PERFORM refuse_reference('balance_transactions_order_id_fkey');
    END IF;
    RETURN NULL;
END
$$;

-- A foreign key's own look-up is as free to choose its index: that of cancellations read all of the one of a user's orders.
CREATE FUNCTION check_cancellations() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM added
               WHERE (SELECT id FROM orders WHERE id BETWEEN added.order_id AND added.order_id ORDER BY id LIMIT 1) IS NULL) THEN
        PERFORM refuse_reference('cancellations_order_id_fkey');
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER cancellations_references AFTER INSERT ON cancellations REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION check_cancellations();
CREATE TRIGGER cancellations_keep BEFORE UPDATE OF order_id ON cancellations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE cancellations DROP CONSTRAINT cancellations_order_id_fkey;
