-- What each program may do, and no more: the API accepts and administers, but writes nothing that is contended for; the
-- workers settle, but neither make users nor change what operators want. Run it as the owner of the tables, who also
-- runs `firstcome-worker migrate`, and again after each migration:
--
--     psql -v ON_ERROR_STOP=1 -f deploy/postgres/roles.sql "$DATABASE_URL"
--
-- Then each program gets a user of its own:
--
--     CREATE ROLE shop_api LOGIN PASSWORD '…' IN ROLE firstcome_api;
--     CREATE ROLE shop_workers LOGIN PASSWORD '…' IN ROLE firstcome_worker;

DO $$
DECLARE
    program text;
BEGIN
    FOREACH program IN ARRAY ARRAY['firstcome_api', 'firstcome_worker'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = program) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', program);
        END IF;
    END LOOP;
END $$;

BEGIN;

-- What an earlier version needed.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM firstcome_api, firstcome_worker;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM firstcome_api, firstcome_worker;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

GRANT USAGE ON SCHEMA public TO firstcome_api, firstcome_worker;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO firstcome_api, firstcome_worker;

-- The API: customers and what they do without a line.
GRANT INSERT, UPDATE (name, email) ON users TO firstcome_api;
GRANT INSERT, DELETE ON subjects TO firstcome_api;
GRANT INSERT, UPDATE (amount) ON balances TO firstcome_api;
GRANT INSERT ON balance_transactions TO firstcome_api;
GRANT INSERT, UPDATE, DELETE ON carts TO firstcome_api;
GRANT INSERT, UPDATE (body) ON idempotent_answers TO firstcome_api;
GRANT UPDATE (reason) ON cancellations TO firstcome_api;
-- Of a job that was lost.
GRANT INSERT ON job_outcomes TO firstcome_api;

-- The API: what operators want. How many are issued is the line's to say.
GRANT INSERT (id, name, discount_type, discount_value, max_discount, total, starts_at, ends_at, valid_until),
    UPDATE (name, discount_type, discount_value, max_discount, total, starts_at, ends_at, valid_until, paused_at, deleted_at)
    ON coupons TO firstcome_api;
GRANT INSERT, UPDATE ON products TO firstcome_api;
GRANT UPDATE (redrive_requested_at, discarded_at) ON dead_letters TO firstcome_api;
GRANT INSERT, DELETE ON pins TO firstcome_api;
-- To pin one key at a time, it locks the row.
GRANT UPDATE (family) ON routing TO firstcome_api;
GRANT INSERT, DELETE ON halts TO firstcome_api;
GRANT INSERT, UPDATE (before, after) ON audit_log TO firstcome_api;
GRANT USAGE, UPDATE ON SEQUENCE users_id_seq, coupons_id_seq, products_id_seq TO firstcome_api;

-- The API: what it tells of what it has accepted and refused.
GRANT INSERT, UPDATE ON line_arrivals, line_tellers, early_refusals TO firstcome_api;

-- The workers: what is contended for.
GRANT UPDATE (issued) ON coupons TO firstcome_worker;
GRANT INSERT, UPDATE ON user_coupons TO firstcome_worker;
GRANT UPDATE (stock) ON products TO firstcome_worker;
GRANT UPDATE (amount) ON balances TO firstcome_worker;
GRANT INSERT ON balance_transactions TO firstcome_worker;
GRANT INSERT ON orders, order_items, payments, cancellations TO firstcome_worker;
GRANT INSERT, UPDATE ON purchases TO firstcome_worker;
GRANT UPDATE, DELETE ON carts TO firstcome_worker;
GRANT USAGE ON SEQUENCE orders_id_seq TO firstcome_worker;

-- The workers: outcomes, what goes with them, and their end.
GRANT INSERT, UPDATE, DELETE ON job_outcomes, dead_letters TO firstcome_worker;
GRANT INSERT, DELETE ON job_mentions TO firstcome_worker;
GRANT INSERT ON redrives, audit_log TO firstcome_worker;
GRANT DELETE ON idempotent_answers TO firstcome_worker;

-- The workers: lines and who serves them.
GRANT UPDATE (partitions, generation, switched_at) ON routing TO firstcome_worker;
GRANT INSERT, UPDATE, DELETE ON workers, partition_leases, line_reports, line_progress TO firstcome_worker;
GRANT DELETE ON line_arrivals, line_tellers TO firstcome_worker;

-- The workers: events and statistics.
GRANT INSERT, UPDATE, DELETE ON outbox_parcels, event_inbox, daily_runs TO firstcome_worker;
GRANT INSERT, UPDATE ON product_sales TO firstcome_worker;

COMMIT;
