-- A coupon drop whose clients sent no keys, and nothing else yet.
SET session_replication_role = replica;

INSERT INTO users (id, name, email) SELECT n, 'User ' || n, n || '@example.com' FROM generate_series(1, 300) AS n;
INSERT INTO balances (user_id, amount) SELECT n, 0 FROM generate_series(1, 300) AS n;
INSERT INTO coupons (id, name, discount_type, discount_value, total, issued, starts_at, ends_at, valid_until)
    VALUES (1, 'Coupon', 'fixed', 1000, 300, 300, '2026-01-01', '2099-01-01', '2099-01-01');
INSERT INTO user_coupons (user_id, coupon_id, issue_number) SELECT n, 1, n FROM generate_series(1, 300) AS n;
INSERT INTO job_outcomes (job_id, user_id, kind, status, result)
    SELECT gen_random_uuid(), n, 'issue-coupon', 'succeeded', '{}' FROM generate_series(1, 300) AS n;
