-- A sale that looks otherwise: every row of every table differs from the others in every column that
-- an index begins with, and there are few of each.
SET session_replication_role = replica;

INSERT INTO users (id, name, email) SELECT n, 'User ' || n, n || '@example.com' FROM generate_series(1, 300) AS n;
INSERT INTO balances (user_id, amount) SELECT n, 0 FROM generate_series(1, 300) AS n;
INSERT INTO products (id, name, price, stock, stocked) SELECT n, 'Product ' || n, 1000, 0, 0 FROM generate_series(1, 300) AS n;
INSERT INTO coupons (id, name, discount_type, discount_value, total, starts_at, ends_at, valid_until)
    SELECT n, 'Coupon ' || n, 'fixed', 1000, 1, '2026-01-01', '2099-01-01', '2099-01-01' FROM generate_series(1, 300) AS n;
INSERT INTO user_coupons (user_id, coupon_id, issue_number) SELECT 1, n, 1 FROM generate_series(1, 300) AS n;
INSERT INTO orders (id, job_id, user_id, items_amount, discount, paid, created_at, completed_at) OVERRIDING SYSTEM VALUE
    SELECT n, gen_random_uuid(), 1, 0, 0, 0, now(), now() FROM generate_series(1, 300) AS n;
INSERT INTO order_items (order_id, product_id, name, unit_price, quantity) SELECT n, n, '', 0, 1 FROM generate_series(1, 300) AS n;
INSERT INTO payments (order_id, user_id, amount, paid_at) SELECT n, n, 0, now() FROM generate_series(1, 300) AS n;
INSERT INTO cancellations (order_id, job_id, by_operator, submitted_at, cancelled_at)
    SELECT n, gen_random_uuid(), false, now(), now() FROM generate_series(1, 300) AS n;
INSERT INTO job_mentions (job_id, what, id) SELECT gen_random_uuid(), 'product', n FROM generate_series(1, 300) AS n;
INSERT INTO early_refusals (family, key, code, refused) SELECT 'family-' || n, 1, 'code', 1 FROM generate_series(1, 300) AS n;
INSERT INTO redrives (job_id, queue, reason, dead_lettered_at) SELECT gen_random_uuid(), 'queue', 'reason', now() FROM generate_series(1, 300) AS n;
INSERT INTO subjects (issuer, subject, user_id) SELECT 'issuer-' || n, 'subject', n FROM generate_series(1, 300) AS n;
INSERT INTO audit_log (at, who, action, target, person)
    SELECT timestamptz '2026-01-01' + n * interval '1 minute', n, 'action-' || n, 'target-' || n, 1 FROM generate_series(1, 300) AS n;
INSERT INTO purchases (user_id, product_id, limit_epoch, quantity) SELECT 1, n, n, 1 FROM generate_series(1, 300) AS n;
INSERT INTO balance_transactions (user_id, kind, amount, balance_after) SELECT 1, 'charge', 1, 1 FROM generate_series(1, 300) AS n;
INSERT INTO job_outcomes (job_id, user_id, kind, status, result, idempotency_key, fingerprint)
    SELECT gen_random_uuid(), 1, 'kind-' || n, 'succeeded', '{}', 'key', 'fingerprint' FROM generate_series(1, 300) AS n;
INSERT INTO idempotent_answers (user_id, kind, idempotency_key, fingerprint, body)
    SELECT 1, 'charge', 'key-' || n, 'fingerprint', '{}' FROM generate_series(1, 300) AS n;
INSERT INTO carts (user_id, product_id, quantity) SELECT 1, n, 2 FROM generate_series(1, 300) AS n;
INSERT INTO outbox_parcels (event_id, event) SELECT gen_random_uuid(), '{}' FROM generate_series(1, 300) AS n;
INSERT INTO event_inbox (consumer, event_id) SELECT 'consumer-' || n, gen_random_uuid() FROM generate_series(1, 300) AS n;
INSERT INTO product_sales (day, product_id, quantity, amount) SELECT date '2026-01-01' + n, 1, 1, 1 FROM generate_series(1, 300) AS n;
-- Few: what was deleted of those to be redriven lies before the others, until somebody has passed it.
INSERT INTO dead_letters (queue, message_id, line, reason, attempts, payload, redrive_requested_at)
    SELECT 'queue', 'message-' || n, 0, 'reason', 1, '', now() FROM generate_series(1, 30) AS n;
