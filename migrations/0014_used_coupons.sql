-- The order that used a coupon, checked once per statement like what 0006 lists: this foreign key was left there,
-- though a batch of orders writes it row by row.
CREATE OR REPLACE FUNCTION check_user_coupons() RETURNS trigger LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF EXISTS (SELECT FROM added
                   WHERE NOT EXISTS (SELECT FROM users WHERE id = added.user_id)) THEN
            PERFORM refuse_reference('user_coupons_user_id_fkey');
        END IF;
        IF EXISTS (SELECT FROM (SELECT DISTINCT coupon_id FROM added) AS added
                   WHERE NOT EXISTS (SELECT FROM coupons WHERE id = added.coupon_id)) THEN
            PERFORM refuse_reference('user_coupons_coupon_id_fkey');
        END IF;
    END IF;
    IF EXISTS (SELECT FROM added
               WHERE order_id IS NOT NULL AND NOT EXISTS (SELECT FROM orders WHERE id = added.order_id)) THEN
        PERFORM refuse_reference('user_coupons_order_id_fkey');
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER user_coupons_order_reference AFTER UPDATE ON user_coupons REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION check_user_coupons();
ALTER TABLE user_coupons DROP CONSTRAINT user_coupons_order_id_fkey;

-- Room beside the coupons, so that using one adds nothing to the indexes.
ALTER TABLE user_coupons SET (fillfactor = 80);
