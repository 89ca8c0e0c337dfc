-- A shop after a year, of as many jobs as `lookups.rows` says: what support looks things up in.
SET session_replication_role = replica;
SET synchronous_commit = off;

CREATE FUNCTION job(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid
    FROM (SELECT lpad(to_hex(1772366400000 + n * 20), 12, '0') AS h) AS millis
$$;
CREATE FUNCTION at(n bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$ SELECT to_timestamp((1772366400000 + n * 20) / 1000.0) $$;
CREATE TABLE numbers AS SELECT n FROM generate_series(1, current_setting('lookups.rows')::bigint) AS n;

INSERT INTO users (id, name, email) SELECT n, 'User ' || n, n || '@example.com' FROM numbers WHERE n <= 20000 OR n % 10 = 0;
INSERT INTO products (id, name, price, stock, stocked) SELECT n, 'Product ' || n, 1000, 10000, 10000 FROM numbers WHERE n <= 1000;
INSERT INTO coupons (id, name, discount_type, discount_value, total, issued, starts_at, ends_at, valid_until)
    SELECT n, 'Coupon ' || n, 'fixed', 1000, 1000000, 0, '2026-01-01', '2099-01-01', '2099-01-01' FROM numbers WHERE n <= 1000;
-- Three of four jobs ask for coupons, half of these for one of them.
INSERT INTO job_outcomes (job_id, user_id, kind, status, code, result, idempotency_key, fingerprint, settled_at, subject, taken_up_at, batch_jobs, line)
    SELECT job(n), 1 + (n * 7919) % 20000, CASE WHEN n % 4 = 0 THEN 'place-order' ELSE 'issue-coupon' END,
           CASE WHEN n % 5000 = 1 THEN 'failed' WHEN n % 4 = 0 THEN 'succeeded' ELSE 'rejected' END,
           CASE WHEN n % 5000 = 1 THEN 'job-unprocessable' WHEN n % 4 = 0 THEN NULL WHEN n % 100 = 1 THEN 'coupon-ended' ELSE 'coupon-sold-out' END,
           CASE WHEN n % 4 = 0 AND n % 5000 <> 1 THEN '{}'::jsonb END,
           'key-' || n, 'fingerprint', at(n) + interval '200 ms', CASE WHEN n % 2 = 0 THEN 1 ELSE 1 + n % 1000 END, at(n), 100, '1.00'
    FROM numbers;
INSERT INTO job_mentions (job_id, what, id) SELECT job(n), 'product', 2 + n % 100 FROM numbers WHERE n % 8 = 0;
INSERT INTO job_mentions (job_id, what, id) SELECT job(n), 'coupon', 1 + n % 1000 FROM numbers WHERE n % 8 = 4;
INSERT INTO job_mentions (job_id, what, id) SELECT job(n), 'order', n FROM numbers WHERE n % 40 = 0;
INSERT INTO orders (id, job_id, user_id, coupon_id, items_amount, discount, paid, created_at, completed_at) OVERRIDING SYSTEM VALUE
    SELECT n, job(n), 1 + (n * 7919) % 20000, CASE WHEN n % 8 = 4 THEN 1 + n % 1000 END, 1000, 0, 1000, at(n), at(n) FROM numbers WHERE n % 4 = 0;
INSERT INTO order_items (order_id, product_id, name, unit_price, quantity)
    SELECT n, CASE WHEN n % 2 = 0 THEN 1 ELSE 1 + n % 1000 END, 'Product', 1000, 1 FROM numbers WHERE n % 4 = 0;
INSERT INTO cancellations (order_id, job_id, by_operator, submitted_at, cancelled_at)
    SELECT n, job(n + 1), false, at(n), at(n) FROM numbers WHERE n % 40 = 0;
INSERT INTO audit_log (at, who, action, target)
    SELECT at(n), 1 + n % 7, CASE WHEN n % 3 = 0 THEN 'edit-product' ELSE 'edit-coupon' END, 'products/' || 1 + n % 50 FROM numbers WHERE n % 5 = 0;
INSERT INTO dead_letters (queue, message_id, line, job_id, user_id, reason, attempts, payload)
    SELECT 'queue', 'message-' || n, 0, job(n), n, 'reason', 1, '' FROM numbers WHERE n % 50 = 1;
INSERT INTO redrives (job_id, queue, reason, dead_lettered_at) SELECT job(n), 'queue', 'reason', at(n) FROM numbers WHERE n % 50 = 1;
