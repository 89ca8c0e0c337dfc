-- The references of what every batch adds, checked once per statement. A foreign key is checked row by
-- row, each time with a lock on the row that is referred to: that took as long as all the rest of a
-- batch. The guarantee is the same: rows of users, coupons, products and orders stay for good, and
-- nothing is added that refers to another.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE foreign_key_violation USING MESSAGE = format('%s of "%s": what rows refer to each other by stays as it is', TG_OP, TG_TABLE_NAME);
END
$$;
CREATE TRIGGER users_stay BEFORE DELETE OR TRUNCATE OR UPDATE OF id ON users
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER coupons_stay BEFORE DELETE OR TRUNCATE OR UPDATE OF id ON coupons
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER products_stay BEFORE DELETE OR TRUNCATE OR UPDATE OF id ON products
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER orders_stay BEFORE DELETE OR TRUNCATE OR UPDATE OF id ON orders
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION refuse_reference(constraint_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE foreign_key_violation
        USING MESSAGE = format('"%s": refers to a row that does not exist', constraint_name), CONSTRAINT = constraint_name;
END
$$;

-- How many rows were added is not known when the plan is made: few or many, an index look-up for each
-- is right.
CREATE FUNCTION check_user_coupons() RETURNS trigger LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM added
               WHERE NOT EXISTS (SELECT FROM users WHERE id = added.user_id)) THEN
        PERFORM refuse_reference('user_coupons_user_id_fkey');
    END IF;
    IF EXISTS (SELECT FROM (SELECT DISTINCT coupon_id FROM added) AS added
               WHERE NOT EXISTS (SELECT FROM coupons WHERE id = added.coupon_id)) THEN
        PERFORM refuse_reference('user_coupons_coupon_id_fkey');
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER user_coupons_references AFTER INSERT ON user_coupons REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION check_user_coupons();
CREATE TRIGGER user_coupons_keep BEFORE UPDATE OF user_id, coupon_id ON user_coupons
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE user_coupons
    DROP CONSTRAINT user_coupons_user_id_fkey,
    DROP CONSTRAINT user_coupons_coupon_id_fkey;

CREATE FUNCTION check_orders() RETURNS trigger LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM added
               WHERE NOT EXISTS (SELECT FROM users WHERE id = added.user_id)) THEN
        PERFORM refuse_reference('orders_user_id_fkey');
    END IF;
    IF EXISTS (SELECT FROM (SELECT DISTINCT coupon_id FROM added) AS added
               WHERE coupon_id IS NOT NULL AND NOT EXISTS (SELECT FROM coupons WHERE id = added.coupon_id)) THEN
        PERFORM refuse_reference('orders_coupon_id_fkey');
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER orders_references AFTER INSERT ON orders REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION check_orders();
CREATE TRIGGER orders_keep BEFORE UPDATE OF user_id, coupon_id ON orders
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE orders
    DROP CONSTRAINT orders_user_id_fkey,
    DROP CONSTRAINT orders_coupon_id_fkey;

CREATE FUNCTION check_order_items() RETURNS trigger LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM added
               WHERE NOT EXISTS (SELECT FROM orders WHERE id = added.order_id)) THEN
        PERFORM refuse_reference('order_items_order_id_fkey');
    END IF;
    IF EXISTS (SELECT FROM (SELECT DISTINCT product_id FROM added) AS added
               WHERE NOT EXISTS (SELECT FROM products WHERE id = added.product_id)) THEN
        PERFORM refuse_reference('order_items_product_id_fkey');
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER order_items_references AFTER INSERT ON order_items REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION check_order_items();
CREATE TRIGGER order_items_keep BEFORE UPDATE OF order_id, product_id ON order_items
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE order_items
    DROP CONSTRAINT order_items_order_id_fkey,
    DROP CONSTRAINT order_items_product_id_fkey;

CREATE FUNCTION check_payments() RETURNS trigger LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM added
               WHERE NOT EXISTS (SELECT FROM orders WHERE id = added.order_id)) THEN
        PERFORM refuse_reference('payments_order_id_fkey');
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER payments_references AFTER INSERT ON payments REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION check_payments();
CREATE TRIGGER payments_keep BEFORE UPDATE OF order_id ON payments
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE payments
    DROP CONSTRAINT payments_order_id_fkey;

CREATE FUNCTION check_balance_transactions() RETURNS trigger LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM added
               WHERE NOT EXISTS (SELECT FROM users WHERE id = added.user_id)) THEN
        PERFORM refuse_reference('balance_transactions_user_id_fkey');
    END IF;
    IF EXISTS (SELECT FROM added
               WHERE order_id IS NOT NULL AND NOT EXISTS (SELECT FROM orders WHERE id = added.order_id)) THEN
        PERFORM refuse_reference('balance_transactions_order_id_fkey');
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER balance_transactions_references AFTER INSERT ON balance_transactions REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION check_balance_transactions();
CREATE TRIGGER balance_transactions_keep BEFORE UPDATE OF user_id, order_id ON balance_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE balance_transactions
    DROP CONSTRAINT balance_transactions_user_id_fkey,
    DROP CONSTRAINT balance_transactions_order_id_fkey;
