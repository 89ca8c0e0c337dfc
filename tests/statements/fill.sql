-- What is in a shop after some sales, 200,000 rows a table. Triggers are left out: they are measured
-- where they run.
SET session_replication_role = replica;
SET synchronous_commit = off;

INSERT INTO users (id, name, email) SELECT n, 'User ' || n, n || '@example.com' FROM generate_series(1, 200010) AS n;
INSERT INTO balances (user_id, amount) SELECT n, 1000000 FROM generate_series(1, 200000) AS n;
INSERT INTO products (id, name, price, stock, stocked) SELECT n, 'Product ' || n, 1000, 10000, 10000 FROM generate_series(1, 2000) AS n;
INSERT INTO coupons (id, name, discount_type, discount_value, total, issued, starts_at, ends_at, valid_until)
    SELECT n, 'Coupon ' || n, 'fixed', 1000, 1000000, 0, '2026-01-01', '2099-01-01', '2099-01-01' FROM generate_series(1, 2000) AS n;
-- One hot campaign that nearly everybody has, and one user who has hundreds of coupons.
INSERT INTO user_coupons (user_id, coupon_id, issue_number)
    SELECT n, 1, n FROM generate_series(1, 199000) AS n;
INSERT INTO user_coupons (user_id, coupon_id, issue_number)
    SELECT 1, n, 1 FROM generate_series(2, 1001) AS n;
-- And one who has tens of thousands, none of them of the hot one.
INSERT INTO user_coupons (user_id, coupon_id, issue_number)
    SELECT 200001, n, 2 FROM generate_series(2, 30001) AS n;
INSERT INTO orders (coupon_id, id, job_id, user_id, items_amount, discount, paid, created_at, completed_at)
    OVERRIDING SYSTEM VALUE
    SELECT 1, n, ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, CASE WHEN n % 200 = 0 THEN 1 ELSE n END, 1000, 0, 1000,
           timestamptz '2026-01-01' + n * interval '1 minute', timestamptz '2026-01-01' + n * interval '1 minute'
    FROM generate_series(1, 200000) AS n;
INSERT INTO order_items (order_id, product_id, name, unit_price, quantity) SELECT n, 1, 'Product 1', 1000, 1 FROM generate_series(1, 200000) AS n;
INSERT INTO payments (order_id, user_id, amount, paid_at) SELECT n, n, 1000, now() FROM generate_series(1, 200000) AS n;
-- Nearly all of them were cancelled.
INSERT INTO cancellations (order_id, job_id, by_operator, submitted_at, cancelled_at)
    SELECT n, ('01910000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, false,
           timestamptz '2026-01-01' + n * interval '1 minute', timestamptz '2026-01-01' + n * interval '1 minute'
    FROM generate_series(1, 200000) AS n WHERE n NOT BETWEEN 100001 AND 101000;
-- One product that nearly everybody has, and one user who has hundreds.
INSERT INTO purchases (user_id, product_id, limit_epoch, quantity) SELECT n, 1, 0, 1 FROM generate_series(1, 200000) AS n;
INSERT INTO purchases (user_id, product_id, limit_epoch, quantity) SELECT 1, n, 0, 1 FROM generate_series(2, 1001) AS n;
INSERT INTO balance_transactions (user_id, kind, amount, balance_after, order_id)
    SELECT CASE WHEN n % 200 = 0 THEN 1 ELSE n END, 'payment', -1000, 1000000, n FROM generate_series(1, 200000) AS n;
-- Three quarters of the coupon jobs for one campaign, and orders that name another product, a coupon and an order.
INSERT INTO job_outcomes (job_id, user_id, kind, status, code, subject)
    SELECT ('01918000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 200000 + n, 'issue-coupon',
           CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'rejected' END, 'coupon-sold-out', CASE WHEN n % 4 = 0 THEN 2 ELSE 1 END
    FROM generate_series(1, 200000) AS n;
INSERT INTO job_mentions (job_id, what, id)
    SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, what, 1
    FROM generate_series(1, 70000) AS n, UNNEST(ARRAY['coupon', 'product', 'order']) AS what;
INSERT INTO job_mentions (job_id, what, id)
    SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, what, 3
    FROM generate_series(1, 70000) AS n, UNNEST(ARRAY['coupon', 'product', 'order']) AS what;
INSERT INTO early_refusals (family, key, code, refused)
    SELECT 'coupon', 1 + n % 10000, 'code-' || n / 10000, 1 FROM generate_series(0, 199999) AS n;
INSERT INTO redrives (job_id, queue, reason, dead_lettered_at)
    SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'queue', 'reason', now() FROM generate_series(1, 200000) AS n;
-- Every job of one kind, with a key; of one user there are a thousand.
INSERT INTO job_outcomes (job_id, user_id, kind, status, result, idempotency_key, fingerprint, subject)
    SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, CASE WHEN n % 200 = 0 THEN 1 ELSE n END, 'place-order', 'succeeded',
           '{}', 'key-' || n, 'fingerprint', 1
    FROM generate_series(1, 200000) AS n;
INSERT INTO job_outcomes (job_id, user_id, kind, status, result, idempotency_key, fingerprint)
    SELECT ('01930000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 200001, 'place-order', 'succeeded', '{}', 'key-z' || n, 'fingerprint'
    FROM generate_series(1, 30000) AS n;
INSERT INTO idempotent_answers (user_id, kind, idempotency_key, fingerprint, body)
    SELECT n, 'charge', 'key-' || n, 'fingerprint', '{}' FROM generate_series(1, 200000) AS n;
INSERT INTO idempotent_answers (user_id, kind, idempotency_key, fingerprint, body)
    SELECT 1, 'create-user', 'user-' || n, 'fingerprint', jsonb_build_object('id', n) FROM generate_series(1, 200000) AS n;
INSERT INTO subjects (issuer, subject, user_id) SELECT 'issuer', 'subject-' || n, n FROM generate_series(1, 200000) AS n;
INSERT INTO carts (user_id, product_id, quantity) SELECT 1 + n / 50, 1 + n % 50, 2 FROM generate_series(0, 199999) AS n;
INSERT INTO outbox_parcels (event_id, event) SELECT gen_random_uuid(), '{}' FROM generate_series(1, 200000) AS n;
INSERT INTO event_inbox (consumer, event_id)
    SELECT 'sales-stats', ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid FROM generate_series(1, 200000) AS n;
INSERT INTO product_sales (day, product_id, quantity, amount)
    SELECT date '2026-01-01' + n / 2000, 1 + n % 2000, 1, 1000 FROM generate_series(0, 199999) AS n;
INSERT INTO dead_letters (queue, message_id, line, job_id, user_id, reason, attempts, payload, discarded_at, redrive_requested_at)
    SELECT 'queue', 'message-' || n, 0, ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, n, 'reason', 1, '',
           CASE WHEN n < 199900 THEN now() END, CASE WHEN n >= 199990 THEN now() END
    FROM generate_series(1, 200000) AS n;
-- One operator, who edits one product all day.
INSERT INTO audit_log (at, who, action, target, person)
    SELECT timestamptz '2026-01-01' + n * interval '1 minute', CASE WHEN n % 200 = 0 THEN 2 ELSE 1 END, 'edit-product', 'products/1', n
    FROM generate_series(1, 200000) AS n;
INSERT INTO daily_runs (job, day) VALUES ('close-day', '2020-01-01'), ('purge', '2020-01-01');

SELECT setval(pg_get_serial_sequence('orders', 'id'), 200000), setval(pg_get_serial_sequence('users', 'id'), 200010),
    setval(pg_get_serial_sequence('products', 'id'), 2000), setval(pg_get_serial_sequence('coupons', 'id'), 2000);
