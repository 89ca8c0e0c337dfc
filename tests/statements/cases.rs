//! What each statement is asked, and what that may cost.

/// Whose sessions run it: they differ in their settings.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Whose {
    /// Those who settle, and the API: by key, with plans that are kept.
    ByKey,
    /// The other roles: planned anew each time.
    Roles,
}

/// The most that a statement may touch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) rows: u64,
    pub(crate) buffers: u64,
}

/// A statement, known by a part of its text, with an expression for each parameter.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) query: &'static str,
    pub(crate) whose: Whose,
    pub(crate) bound: Bound,
    pub(crate) arguments: &'static [&'static str],
}

/// Jobs in the batch, keys in the look-up.
const JOBS: u64 = 500;

/// A look-up of so many keys: each goes down an index of three levels and to its row, and some rows pass
/// through two or three nodes of the plan.
const fn reads(keys: u64) -> Bound {
    Bound { rows: 8 * keys + 50, buffers: 12 * keys + 100 }
}

/// The same, each row as the index finds it. A bitmap would take each twice, and a tenth longer.
const fn finds(keys: u64) -> Bound {
    Bound { rows: keys + 50, ..reads(keys) }
}

/// So many new or changed rows: each in up to five indexes, with its references looked up.
const fn writes(rows: u64) -> Bound {
    Bound { rows: 12 * rows + 50, buffers: 50 * rows + 200 }
}

const fn by_key(query: &'static str, bound: Bound, arguments: &'static [&'static str]) -> Case {
    Case { query, whose: Whose::ByKey, bound, arguments }
}

const fn roles(query: &'static str, bound: Bound, arguments: &'static [&'static str]) -> Case {
    Case { query, whose: Whose::Roles, bound, arguments }
}

/// Somewhere in the middle of the tables.
const IDS: &str = "(SELECT array_agg(n) FROM generate_series(100001, 100500) AS n)";
/// Half of them one who has tens of thousands of coupons and keys, but not what is asked for.
const ASKERS: &str = "(SELECT array_agg(CASE WHEN n % 2 = 0 THEN 200001 ELSE n END) FROM generate_series(100001, 100500) AS n)";
const HUNDRED: &str = "(SELECT array_agg(n) FROM generate_series(1, 100) AS n)";
const ONES: &str = "(SELECT array_agg(1) FROM generate_series(1, 500))";
const TEXTS: &str = "(SELECT array_agg('[]'::text) FROM generate_series(1, 500))";
const NULLS: &str = "(SELECT array_agg(NULL::text) FROM generate_series(1, 500))";
const NULL_UUIDS: &str = "(SELECT array_agg(NULL::uuid) FROM generate_series(1, 500))";
const RESULTS: &str = "(SELECT array_agg('{}'::text) FROM generate_series(1, 500))";
const KEYS: &str = "(SELECT array_agg('key-' || n) FROM generate_series(100001, 100500) AS n)";
const NEW_KEYS: &str = "(SELECT array_agg('new-' || n) FROM generate_series(100001, 100500) AS n)";
const KINDS: &str = "(SELECT array_agg('place-order'::text) FROM generate_series(1, 500))";
const SUCCEEDED: &str = "(SELECT array_agg('succeeded'::text) FROM generate_series(1, 500))";
const JOB_IDS: &str = "(SELECT array_agg(job_id ORDER BY job_id) FROM job_outcomes WHERE user_id BETWEEN 100001 AND 100502)";
const NEW_IDS: &str = "(SELECT array_agg(('01a00000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid) FROM generate_series(1, 500) AS n)";
const NEW_ORDERS: &str = "(SELECT array_agg(n) FROM generate_series(300001, 300500) AS n)";
const PRODUCTS: &str = "(SELECT array_agg(1 + n % 100) FROM generate_series(1, 500) AS n)";
const HELD: &str =
    "(SELECT array_agg(id) FROM user_coupons WHERE user_id BETWEEN 100001 AND 100500)";
/// Orders of the fill that are not cancelled, and each one's customer.
const ORDERS: &str = "(SELECT array_agg(id ORDER BY id) FROM orders WHERE id BETWEEN 100001 AND 100502 AND user_id = id)";
const HOLDERS: &str = "(SELECT array_agg(CASE WHEN id % 2 = 0 THEN 200001 ELSE id END ORDER BY id) FROM orders WHERE id BETWEEN 100001 AND 100502 AND user_id = id)";
const NOW: &str = "(SELECT array_agg(now()) FROM generate_series(1, 500))";
const LATER: &str = "(SELECT array_agg(now() + interval '1 day') FROM generate_series(1, 500))";
const NULL_TIMES: &str = "(SELECT array_agg(NULL::timestamptz) FROM generate_series(1, 500))";
const PERCENTS: &str = "(SELECT array_agg('percent'::text) FROM generate_series(1, 500))";
const EMAILS: &str =
    "(SELECT array_agg(n || '@Example.com') FROM generate_series(100001, 100500) AS n)";
const SUBJECTS: &str =
    "(SELECT array_agg('subject-' || n) FROM generate_series(100001, 100500) AS n)";
const NEW_USERS: &str = "(SELECT array_agg(n) FROM generate_series(300001, 300500) AS n)";
/// What a list begins below that begins with the highest id.
const LAST: &str = "9223372036854775807";
const FIRST_JOB: &str = "'01900000-0000-7000-8000-000000000000'::uuid";
const MIDDLE_JOB: &str = "'01900000-0000-7000-8000-000000010000'::uuid";
const LAST_JOB: &str = "'01920000-0000-7000-8000-000000000000'::uuid";
const LOOKED_AT: &str = "(SELECT array_agg(n) FROM generate_series(100001, 102000) AS n)";
const LONG_AGO: &str = "timestamptz '1970-01-01'";
const LATE: &str = "timestamptz '2026-03-01'";
const DAYS: &str = "(SELECT array_agg(date '2026-10-01') FROM generate_series(1, 500))";

/// Every statement of a batch, a look-up, a route or a role.
pub(crate) const CASES: &[Case] = &[
    // A batch, whatever it is of.
    by_key(
        "AS \"ours!\", known.ids",
        reads(JOBS),
        &[
            "ARRAY['product']",
            "ARRAY[1]",
            "ARRAY['00']",
            "ARRAY[NULL]",
            "ARRAY[1]",
            JOB_IDS,
            "'250ms'",
        ],
    ),
    by_key("DELETE FROM job_outcomes WHERE job_id = ANY($1) AND redriven", reads(JOBS), &[JOB_IDS]),
    by_key("AS \"idempotency_key!\"", reads(JOBS), &["'place-order'", ASKERS, KEYS]),
    by_key(
        "INSERT INTO job_outcomes",
        writes(2 * JOBS),
        &[
            "'place-order'",
            NEW_IDS,
            IDS,
            SUCCEEDED,
            NULLS,
            RESULTS,
            NULLS,
            NEW_KEYS,
            TEXTS,
            NULL_UUIDS,
            "ARRAY['product']",
            "ARRAY[1]",
            "ARRAY['00']",
            "ARRAY[500]",
            "ARRAY[now()]",
            ONES,
            NULL_UUIDS,
            "500",
            "(SELECT array_agg('1.00'::text) FROM generate_series(1, 500))",
            NEW_IDS,
            "(SELECT array_agg('coupon'::text) FROM generate_series(1, 500))",
            ONES,
            // One per parcel of events, of which there are fewer.
            NEW_IDS,
            "(SELECT array_agg('order.completed'::text) FROM generate_series(1, 500))",
            ONES,
            TEXTS,
        ],
    ),
    by_key(
        "UPDATE job_outcomes SET redriven",
        reads(1),
        &["(SELECT min(job_id::text) FROM job_outcomes)", "true"],
    ),
    by_key(
        "INSERT INTO dead_letters",
        writes(JOBS),
        &[
            KINDS,
            NEW_KEYS,
            ONES,
            NEW_IDS,
            IDS,
            TEXTS,
            ONES,
            "(SELECT array_agg(''::bytea) FROM generate_series(1, 500))",
            NULLS,
            NULLS,
        ],
    ),
    // issue-coupon
    by_key(
        "FROM coupons WHERE id = ANY($1) AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE",
        reads(100),
        &[HUNDRED],
    ),
    by_key("AS \"holds!\"", reads(2 * JOBS), &[ASKERS, ONES]),
    by_key(
        "INSERT INTO user_coupons",
        writes(JOBS),
        &[
            "(SELECT array_agg(n) FROM generate_series(199001, 199500) AS n)",
            ONES,
            "(SELECT array_agg(n) FROM generate_series(199001, 199500) AS n)",
            "ARRAY[1]",
            "ARRAY[199500]",
            NULL_UUIDS,
        ],
    ),
    // place-order
    by_key(
        "FROM products WHERE id = ANY($1) AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE",
        reads(100),
        &[HUNDRED],
    ),
    by_key(
        "FROM balances WHERE user_id = ANY($1) ORDER BY user_id FOR NO KEY UPDATE",
        reads(JOBS),
        &[IDS],
    ),
    by_key("held.used_at IS NOT NULL AS \"used!\"", reads(3 * JOBS), &[ASKERS, ONES]),
    by_key("nextval(pg_get_serial_sequence('orders', 'id'))", reads(JOBS), &["500"]),
    by_key(
        "INSERT INTO orders",
        writes(4 * JOBS),
        &[
            NEW_ORDERS,
            NEW_IDS,
            IDS,
            ONES,
            HELD,
            ONES,
            ONES,
            "(SELECT array_agg(0) FROM generate_series(1, 500))",
            ONES,
            TEXTS,
            NOW,
            NEW_ORDERS,
            PRODUCTS,
            TEXTS,
            ONES,
            ONES,
        ],
    ),
    by_key("UPDATE products SET stock = batch.stock", writes(JOBS), &[HUNDRED, HUNDRED, IDS, ONES]),
    by_key(
        "UPDATE carts SET quantity = carts.quantity - bought.quantity",
        writes(JOBS),
        &[
            "(SELECT array_agg(1000 + n / 50) FROM generate_series(0, 499) AS n)",
            "(SELECT array_agg(1 + n % 50) FROM generate_series(0, 499) AS n)",
            "(SELECT array_agg(1 + n % 2) FROM generate_series(0, 499) AS n)",
        ],
    ),
    // Of counts that are there, of orders that have to be summed, and of a user with a thousand orders, of which none
    // can be of these products.
    by_key(
        "AS \"counted?\"",
        reads(3 * JOBS),
        &[
            "(SELECT array_agg(CASE WHEN n > 480 THEN 1 ELSE 100000 + n END) FROM generate_series(1, 500) AS n)",
            "(SELECT array_agg(CASE WHEN n > 480 THEN 1019 + n ELSE 1 END) FROM generate_series(1, 500) AS n)",
            "(SELECT array_agg(CASE WHEN n > 480 THEN 0 ELSE n % 2 END) FROM generate_series(1, 500) AS n)",
        ],
    ),
    by_key("INSERT INTO purchases", writes(JOBS), &[IDS, ONES, ONES, ONES]),
    // cancel-order
    by_key("SELECT id, stock, per_customer, limit_epoch FROM products", reads(100), &[HUNDRED]),
    by_key("AS \"is_cancelled!\"", reads(3 * JOBS), &[ORDERS, ORDERS]),
    by_key(
        "SELECT order_id, product_id, quantity, unit_price FROM order_items",
        reads(2 * JOBS),
        &[ORDERS],
    ),
    by_key("AS asked (used_by, holder, coupon)", reads(3 * JOBS), &[ORDERS, HOLDERS, ONES]),
    by_key(
        "INSERT INTO cancellations",
        writes(4 * JOBS),
        &[
            ORDERS,
            NEW_IDS,
            TEXTS,
            "(SELECT array_agg(false) FROM generate_series(1, 500))",
            NOW,
            ORDERS,
            ONES,
            ONES,
            HELD,
            ONES,
            TEXTS,
        ],
    ),
    by_key(
        "UPDATE purchases SET quantity = purchases.quantity - batch.quantity",
        writes(JOBS),
        &[IDS, ONES, "(SELECT array_agg(0) FROM generate_series(1, 500))", ONES],
    ),
    // A batch with jobs of both kinds.
    by_key(
        "SELECT FROM products WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE",
        reads(100),
        &[HUNDRED],
    ),
    // Looked up by the API, many keys at a time.
    by_key(
        "paused_at IS NOT NULL AS \"paused!\" FROM coupons WHERE id = ANY($1) AND deleted_at IS NULL",
        reads(100),
        &[HUNDRED],
    ),
    by_key("FROM coupons WHERE id = ANY($1) AND deleted_at IS NULL", reads(100), &[HUNDRED]),
    by_key(
        "SELECT id, on_sale_from, on_sale_until, paused_at FROM products WHERE id = ANY($1)",
        reads(100),
        &[HUNDRED],
    ),
    by_key("AS \"product_ids!\" FROM orders WHERE id = ANY($1)", reads(2 * JOBS), &[IDS]),
    by_key("settled_at FROM job_outcomes WHERE job_id = ANY($1)", finds(JOBS), &[JOB_IDS]),
    by_key("AS \"position!\"", reads(JOBS), &[ASKERS, KINDS, KEYS]),
    // Lost jobs, as many as are asked for.
    by_key("'failed', 'job-lost' FROM UNNEST", writes(JOBS), &[NEW_IDS, IDS, KINDS, DAYS]),
    by_key("DO NOTHING RETURNING job_id, settled_at", writes(JOBS), &[NEW_IDS, IDS, KINDS, DAYS]),
    by_key("SELECT job_id, code FROM job_outcomes", finds(JOBS), &[JOB_IDS]),
    // Customers' routes.
    by_key("SELECT user_id, amount FROM balances WHERE user_id = ANY($1)", reads(JOBS), &[IDS]),
    by_key("SELECT 1 AS one FROM balances", reads(1), &["100001"]),
    by_key(
        "UPDATE balances SET amount = amount + $2",
        writes(2),
        &["100001", "1000", "1000000000"],
    ),
    by_key("FROM balance_transactions WHERE user_id = ANY", reads(21), &["100001", LAST, "21"]),
    by_key(
        "INSERT INTO idempotent_answers",
        writes(1),
        &["100001", "'charge'", "'new'", "'fingerprint'"],
    ),
    by_key("UPDATE idempotent_answers", writes(1), &["100001", "'charge'", "'key-100001'", "'{}'"]),
    by_key(
        "FROM idempotent_answers WHERE user_id = $1",
        reads(1),
        &["100001", "'charge'", "'key-100001'"],
    ),
    by_key("stock = 0 AS \"sold_out!\" FROM products WHERE id = ANY($1)", reads(100), &[HUNDRED]),
    by_key("FROM products WHERE deleted_at IS NULL AND id > COALESCE", reads(21), &["100", "21"]),
    // The rows of four days are its own.
    by_key("FROM product_sales WHERE day >= $1", reads(4 * 2_000), &["date '2026-04-06'", "5"]),
    by_key(
        "SELECT (now() AT TIME ZONE $1)::date - $2::int AS \"from!\"",
        reads(1),
        &["'Asia/Seoul'", "3"],
    ),
    by_key("FROM coupons WHERE deleted_at IS NULL AND id > COALESCE", reads(21), &["100", "21"]),
    by_key("FROM user_coupons WHERE user_id = $1", reads(3), &["100001", "NULL", LAST, "21"]),
    by_key(
        "SELECT user_id FROM balances WHERE user_id = $1 FOR NO KEY UPDATE",
        reads(1),
        &["100001"],
    ),
    by_key("AS \"items!\" FROM carts", reads(2 * 50), &["1000"]),
    by_key("INSERT INTO carts", writes(1), &["1000", "100", "1"]),
    by_key(
        "FROM balances WHERE user_id = $1 FOR NO KEY UPDATE) DELETE FROM carts",
        writes(50),
        &["1000", "NULL"],
    ),
    by_key("price AS \"price!\", quantity FROM carts", reads(2 * 50), &["1000"]),
    by_key("SELECT product_id, quantity FROM carts", reads(2 * 50), &["1000"]),
    by_key("SELECT id FROM orders WHERE user_id = ANY", reads(21), &["100001", LAST, "21"]),
    by_key(
        "AS cancelled ON true WHERE id = ANY($2) AND ($1::bigint IS NULL OR user_id = $1)",
        reads(3 * 21),
        &["100001", "(SELECT array_agg(n) FROM generate_series(100001, 100021) AS n)"],
    ),
    // Operators' routes.
    by_key(
        "INSERT INTO users (id, name, email) VALUES",
        writes(1),
        &["NULL", "'Name'", "'new@example.com'"],
    ),
    by_key("INSERT INTO balances (user_id) VALUES", writes(1), &["200005"]),
    by_key("SELECT id FROM users WHERE id = ANY($1)", reads(JOBS), &[IDS]),
    by_key("SELECT id FROM products WHERE id = ANY($1)", reads(JOBS), &[IDS]),
    by_key("SELECT id FROM coupons WHERE id = ANY($1)", reads(JOBS), &[IDS]),
    by_key("AS \"id!\" FROM generate_series(1, $2::bigint)", reads(JOBS), &["'users'", "500"]),
    // Imports, by the batch.
    by_key("AS \"owner?\"", reads(2 * JOBS), &[EMAILS]),
    by_key("AS \"key!\" FROM users WHERE id = ANY($1)", reads(JOBS), &[IDS]),
    by_key("INSERT INTO users (id, email, name)", writes(JOBS), &[NEW_USERS, NEW_KEYS, KEYS]),
    by_key(
        "INSERT INTO balances (user_id, amount) SELECT user_id, amount FROM UNNEST",
        writes(JOBS),
        &[
            "(SELECT array_agg(n) FROM generate_series(200001, 200010) AS n)",
            "(SELECT array_agg(1) FROM generate_series(1, 10))",
        ],
    ),
    by_key("AS \"subject!\"", reads(2 * JOBS), &["'issuer'", SUBJECTS, IDS]),
    by_key(
        "INSERT INTO subjects (issuer, subject, user_id) SELECT",
        writes(JOBS),
        &["'another issuer'", SUBJECTS, IDS],
    ),
    by_key("UPDATE users SET name = batch.name", writes(JOBS), &[IDS, KEYS, NEW_KEYS]),
    by_key(
        "AS \"is_deleted!\" FROM products WHERE id = ANY($1)",
        reads(JOBS),
        &["(SELECT array_agg(n) FROM generate_series(1, 500) AS n)"],
    ),
    by_key(
        "INSERT INTO products (id, name, price, stock, stocked, on_sale_from",
        writes(JOBS),
        &[NEW_ORDERS, KEYS, ONES, ONES, NOW, NULL_TIMES, ONES],
    ),
    by_key(
        "UPDATE products SET name = batch.name",
        writes(JOBS),
        &[
            "(SELECT array_agg(n) FROM generate_series(1, 500) AS n)",
            KEYS,
            ONES,
            ONES,
            NOW,
            NULL_TIMES,
            ONES,
        ],
    ),
    by_key(
        "AS \"is_deleted!\" FROM coupons WHERE id = ANY($1)",
        reads(JOBS),
        &["(SELECT array_agg(n) FROM generate_series(1, 500) AS n)"],
    ),
    by_key(
        "INSERT INTO coupons (id, name, discount_type, discount_value, max_discount, total, starts_at, ends_at, valid_until)",
        writes(JOBS),
        &[NEW_ORDERS, KEYS, PERCENTS, ONES, ONES, ONES, NOW, LATER, LATER],
    ),
    by_key(
        "UPDATE coupons SET name = batch.name",
        writes(JOBS),
        &[
            "(SELECT array_agg(n) FROM generate_series(1, 500) AS n)",
            KEYS,
            PERCENTS,
            ONES,
            ONES,
            ONES,
            NOW,
            LATER,
            LATER,
        ],
    ),
    // Exports: of the hottest ones, from their middle.
    by_key("AS \"one!\" FROM coupons", reads(1), &["1"]),
    by_key("AS \"one!\" FROM products", reads(1), &["1"]),
    by_key("AS user_coupon_id", reads(1_000), &["1", "100000", "1000"]),
    by_key(
        "AS \"is_cancelled!\" FROM (SELECT order_id",
        reads(4 * 1_000),
        &["1", "100000", "1000"],
    ),
    // What support looks up: of one who has nearly everything, from the middle, as far as is looked for a page.
    by_key(
        "FROM users WHERE lower(email) = lower($1) OFFSET 0",
        reads(1),
        &["'100001@Example.com'", "NULL", "0"],
    ),
    by_key("SELECT id FROM users WHERE id > $1", reads(101), &["100000", "101"]),
    by_key(
        "(SELECT amount FROM balances WHERE user_id = users.id LIMIT 1)",
        reads(2 * 100),
        &["(SELECT array_agg(n) FROM generate_series(100001, 100100) AS n)"],
    ),
    by_key("AS \"coupons!\"", reads(3 * 1_000), &["1", "10000"]),
    by_key(
        "SELECT id, job_id AS job FROM orders WHERE user_id = ANY",
        reads(2_000),
        &["1", "150000", "2000"],
    ),
    by_key(
        "SELECT id, job_id AS job FROM orders WHERE coupon_id = ANY",
        reads(2_000),
        &["1", FIRST_JOB, MIDDLE_JOB, "2000"],
    ),
    by_key(
        "SELECT id, job_id AS job FROM orders WHERE coupon_id = ANY",
        reads(1),
        &["1", MIDDLE_JOB, MIDDLE_JOB, "2000"],
    ),
    by_key("AS \"id!\", placed.job_id AS \"job!\"", reads(2 * 2_000), &["1", "150000", "2000"]),
    by_key(
        "SELECT order_id AS id, job_id AS job FROM cancellations",
        reads(2_000),
        &["150000", "2000"],
    ),
    by_key(
        "FROM orders WHERE job_id >= $1 AND job_id < $2 ORDER BY job_id DESC",
        reads(2_000),
        &[FIRST_JOB, MIDDLE_JOB, "2000"],
    ),
    by_key(
        "SELECT id FROM orders WHERE id = ANY($1) AND ($2::bigint IS NULL",
        reads(3 * 2_000),
        &[LOOKED_AT, "1", "1", "1", "true", LONG_AGO, LATE],
    ),
    by_key(
        "FROM UNNEST($2::text[]) AS kinds (name)",
        reads(3),
        &["100001", "ARRAY['issue-coupon', 'place-order']", "'key-100001'", FIRST_JOB, LAST_JOB],
    ),
    by_key(
        "SELECT job_id FROM orders WHERE id BETWEEN $1 AND $1 AND job_id >= $2",
        reads(2_000),
        &["1", FIRST_JOB, MIDDLE_JOB, "2000"],
    ),
    by_key(
        "SELECT job_id FROM orders WHERE id BETWEEN $1 AND $1 AND job_id >= $2",
        reads(1),
        &["2", MIDDLE_JOB, MIDDLE_JOB, "2000"],
    ),
    by_key(
        "UNION SELECT job_id FROM orders WHERE user_id = $1 ) AS jobs WHERE job_id >= $2",
        // Of somebody with a thousand keyed orders, and as many coupons.
        reads(2_000 + 3 * 1_000),
        &["1", FIRST_JOB, MIDDLE_JOB, "2000"],
    ),
    by_key("what = ANY(ARRAY['coupon'])", reads(4 * 2_000), &["1", FIRST_JOB, MIDDLE_JOB, "2000"]),
    by_key("what = ANY(ARRAY['coupon'])", reads(1), &["2", MIDDLE_JOB, MIDDLE_JOB, "2000"]),
    by_key(
        "what = ANY(ARRAY['product']) AND id = $1 AND job_id >= $2 AND job_id < $3 ORDER BY what DESC",
        reads(3 * 2_000),
        &["1", FIRST_JOB, MIDDLE_JOB, "2000"],
    ),
    by_key(
        "what = ANY(ARRAY['product']) AND id = $1 AND job_id >= $2 AND job_id < $3 ORDER BY what DESC",
        reads(1),
        &["2", MIDDLE_JOB, MIDDLE_JOB, "2000"],
    ),
    by_key(
        "WHERE status = 'failed' AND job_id >= $1",
        reads(2_000),
        &[FIRST_JOB, MIDDLE_JOB, "2000"],
    ),
    by_key(
        "SELECT job_id FROM job_outcomes WHERE job_id >= $1 AND job_id < $2 ORDER BY job_id DESC",
        reads(2_000),
        &[FIRST_JOB, MIDDLE_JOB, "2000"],
    ),
    by_key(
        "SELECT job_id FROM job_outcomes WHERE job_id = ANY($1) AND ($2::bigint IS NULL",
        reads(4 * 2_000),
        &[
            "(SELECT array_agg(job_id) FROM (SELECT job_id FROM job_outcomes ORDER BY job_id OFFSET 100000 LIMIT 2000) AS middle)",
            "NULL",
            "'place-order'",
            "'succeeded'",
            "NULL",
            "1",
            "7",
            "7",
        ],
    ),
    by_key(
        "AS \"mentions: Json<Vec<Mentioned>>\"",
        reads(3 * 100),
        &[
            "(SELECT array_agg(job_id) FROM (SELECT job_id FROM job_outcomes ORDER BY job_id OFFSET 100000 LIMIT 100) AS middle)",
        ],
    ),
    by_key(
        "NULL::timestamptz AS redriven_at FROM dead_letters",
        reads(2 * 100),
        &[MIDDLE_JOB, "1000", "100"],
    ),
    // The report of a sale, piece by piece.
    by_key("SELECT name, total FROM coupons WHERE id = $1", reads(1), &["1"]),
    by_key("SELECT name, stocked FROM products WHERE id = $1", reads(1), &["1"]),
    by_key("SELECT code, refused FROM early_refusals", reads(20), &["'coupon'", "1"]),
    by_key(
        "INSERT INTO early_refusals",
        writes(JOBS),
        &["(SELECT array_agg('coupon'::text) FROM generate_series(1, 500))", IDS, TEXTS, ONES],
    ),
    by_key(
        "WHERE kind = 'issue-coupon' AND subject = ANY(ARRAY[$1::bigint]) AND job_id >= $2 AND job_id < $3 ORDER BY subject, job_id",
        reads(10_000),
        &["1", FIRST_JOB, LAST_JOB, "10000"],
    ),
    by_key(
        "WHERE kind = 'issue-coupon' AND subject = ANY(ARRAY[$1::bigint]) AND job_id >= $2 AND job_id < $3 ORDER BY subject, job_id",
        reads(1),
        &["1", MIDDLE_JOB, MIDDLE_JOB, "10000"],
    ),
    by_key(
        "WHERE kind <> 'issue-coupon' AND subject = ANY(ARRAY[$1::bigint]) AND job_id >= $2 AND job_id < $3 ORDER BY subject, job_id",
        reads(10_000),
        &["1", FIRST_JOB, LAST_JOB, "10000"],
    ),
    by_key(
        "WHERE kind <> 'issue-coupon' AND subject = ANY(ARRAY[$1::bigint]) AND job_id >= $2 AND job_id < $3 ORDER BY subject, job_id",
        reads(1),
        &["1", MIDDLE_JOB, MIDDLE_JOB, "10000"],
    ),
    by_key(
        "AS mention CROSS JOIN LATERAL",
        reads(3 * 10_000),
        &["1", FIRST_JOB, LAST_JOB, "10000"],
    ),
    by_key("AS mention CROSS JOIN LATERAL", reads(1), &["2", MIDDLE_JOB, MIDDLE_JOB, "10000"]),
    // The audit log: of an operator who made nearly all changes.
    by_key(
        "INSERT INTO audit_log (who, action, target, person, before, after, request_id) VALUES",
        writes(1),
        &["1", "'edit-product'", "'products/1'", "NULL", "'{}'", "'{}'", "'request'"],
    ),
    by_key("UPDATE audit_log SET after = $2", writes(1), &["100001", "'{}'"]),
    by_key("UPDATE audit_log SET before", writes(10), &["100001"]),
    by_key(
        "FROM audit_log WHERE target = ANY",
        reads(2_000),
        &["'products/1'", "2", "NULL", LONG_AGO, LATE, "1", "2000"],
    ),
    by_key(
        "FROM audit_log WHERE target = ANY",
        reads(1),
        &["'products/1'", "2", "NULL", LATE, LATE, "1", "2000"],
    ),
    by_key(
        "FROM audit_log WHERE who = ANY",
        reads(2_000),
        &["1", "'delete-product'", LONG_AGO, LATE, "1", "2000"],
    ),
    by_key(
        "FROM audit_log WHERE who = ANY",
        reads(1),
        &["1", "'delete-product'", LATE, LATE, "1", "2000"],
    ),
    by_key(
        "FROM audit_log WHERE action = ANY",
        reads(101),
        &["'edit-product'", LONG_AGO, LATE, "1", "101"],
    ),
    by_key(
        "FROM audit_log WHERE action = ANY",
        reads(1),
        &["'edit-product'", LATE, LATE, "1", "101"],
    ),
    by_key(
        "SELECT at, id FROM audit_log WHERE at >= $1",
        reads(101),
        &[LONG_AGO, LATE, "1", "101"],
    ),
    by_key(
        "FROM audit_log WHERE id = ANY($1) ORDER BY id",
        reads(100),
        &["(SELECT array_agg(n) FROM generate_series(100001, 100100) AS n)"],
    ),
    // Personal data; of a user with a thousand orders.
    by_key(
        "UPDATE users SET name = $2, email = $3",
        writes(1),
        &["1", "'removed'", "'removed-1@invalid'"],
    ),
    by_key(
        "UPDATE idempotent_answers SET body = body ||",
        writes(1),
        &["1", "'removed'", "'removed-1@invalid'"],
    ),
    by_key(
        "UPDATE cancellations SET reason = NULL",
        writes(1_000),
        &["(SELECT array_agg(id) FROM orders WHERE user_id = 1)"],
    ),
    by_key("DELETE FROM subjects", writes(1), &["1"]),
    // People who are new.
    by_key("pg_advisory_xact_lock(hashtextextended", reads(1), &["'issuer'", "'subject'"]),
    by_key(
        "SELECT user_id FROM subjects WHERE issuer = ANY(ARRAY[$1::text])",
        reads(1),
        &["'issuer'", "'subject'"],
    ),
    by_key("SELECT id FROM users WHERE id = $1", reads(1), &["100001"]),
    by_key(
        "SELECT user_id FROM subjects WHERE issuer = ANY(ARRAY[$2::text])",
        reads(2),
        &["'new@example.com'", "'issuer'"],
    ),
    by_key("AS \"taken!\"", reads(1), &["'new@example.com'"]),
    by_key(
        "INSERT INTO subjects (issuer, subject, user_id) VALUES",
        writes(1),
        &["'issuer'", "'subject'", "100001"],
    ),
    by_key(
        "INSERT INTO products (name, price, stock, stocked, on_sale_from",
        writes(1),
        &["'Name'", "1", "1", "NULL", "NULL", "1"],
    ),
    by_key("FROM products WHERE deleted_at IS NOT NULL", reads(21), &["100", "21"]),
    by_key(
        "UPDATE products SET name = COALESCE",
        writes(1),
        &["100", "'Name'", "1", "1", "NULL", "true", "NULL", "true", "NULL", "true", "1", "true"],
    ),
    by_key("UPDATE products SET stock = stock + $2", writes(1), &["100", "1"]),
    by_key(
        "FROM products WHERE id = $1 AND (deleted_at IS NULL OR $2) FOR NO KEY UPDATE",
        reads(1),
        &["100", "false"],
    ),
    by_key("UPDATE products SET deleted_at", writes(1), &["100"]),
    by_key(
        "INSERT INTO coupons (name",
        writes(1),
        &[
            "'Name'",
            "'fixed'",
            "1",
            "NULL",
            "1",
            "timestamptz '2026-01-01'",
            "timestamptz '2027-01-01'",
            "NULL",
        ],
    ),
    by_key(
        "UPDATE coupons SET name = COALESCE",
        writes(1),
        &[
            "100", "'Name'", "NULL", "NULL", "false", "NULL", "NULL", "NULL", "NULL", "NULL",
            "NULL", "true",
        ],
    ),
    by_key(
        "FROM coupons WHERE id = $1 AND (deleted_at IS NULL OR $2) FOR NO KEY UPDATE",
        reads(1),
        &["100", "false"],
    ),
    by_key("FROM coupons WHERE deleted_at IS NOT NULL", reads(21), &["100", "21"]),
    by_key("UPDATE coupons SET deleted_at", writes(1), &["100"]),
    by_key(
        "NOT EXISTS (SELECT FROM products WHERE id = $1 AND deleted_at IS NULL)",
        reads(1),
        &["100"],
    ),
    by_key("NOT EXISTS (SELECT FROM coupons WHERE id = $1", reads(1), &["100"]),
    by_key(
        "discarded_at IS NULL AND id < $1 ORDER BY id DESC",
        reads(21),
        &[LAST, "21", "1000", "16384"],
    ),
    by_key(
        "WHERE id = $1 AND discarded_at IS NULL RETURNING queue, payload",
        writes(1),
        &["199999"],
    ),
    by_key("UPDATE dead_letters SET discarded_at", writes(1), &["199999"]),
    by_key("discarded_at IS NULL RETURNING queue, job_id, user_id", writes(1), &["199999"]),
    // Of as many rows as there are lines, every second; all of the tables are read.
    by_key("FROM partition_leases AS l JOIN routing ON", reads(10), &[]),
    by_key("WITH dead AS (DELETE FROM workers", reads(1), &["'product'"]),
    by_key(
        "SELECT l.generation, line, naming, l.partitions, capacity",
        reads(10),
        &["'product'", "2.0"],
    ),
    // Redriving, by the settling roles.
    by_key(
        "FROM dead_letters WHERE id = $1 AND redrive_requested_at IS NOT NULL FOR UPDATE",
        reads(1),
        &["199999"],
    ),
    by_key(
        "FROM dead_letters WHERE redrive_requested_at IS NOT NULL AND id > $1",
        reads(1),
        &["0"],
    ),
    by_key(
        "UPDATE dead_letters SET redrive_requested_at = NULL WHERE id = $1",
        writes(1),
        &["199999"],
    ),
    by_key("DELETE FROM dead_letters WHERE id = $1", writes(2), &["199999", "1000"]),
    // The relay.
    roles(
        "SELECT id, type, event, events FROM outbox_parcels ORDER BY id LIMIT",
        reads(256),
        &["128", "512"],
    ),
    roles(
        "FROM (SELECT created_at FROM outbox_parcels ORDER BY id LIMIT 1) AS first",
        reads(JOBS),
        &["500"],
    ),
    roles(
        "FROM (SELECT queue, dead_lettered_at FROM dead_letters WHERE discarded_at IS NULL",
        reads(1_000),
        &["1000"],
    ),
    roles(
        "DELETE FROM outbox_parcels",
        reads(JOBS),
        &[
            "(SELECT array_agg(id) FROM (SELECT id FROM outbox_parcels ORDER BY id LIMIT 500) AS first)",
        ],
    ),
    // Counting.
    roles(
        "INSERT INTO event_inbox (consumer, event_id) SELECT DISTINCT $1, event_id FROM sold",
        writes(2 * JOBS),
        &["'sales-stats'", NEW_IDS, NOW, PRODUCTS, ONES, ONES, "'Asia/Seoul'", DAYS],
    ),
    // Recounting, piece by piece; a day has 1,440 orders.
    roles(
        "SELECT job_id FROM orders WHERE job_id >= $1 ORDER BY job_id OFFSET",
        reads(JOBS),
        &["'01900000-0000-7000-8000-000000010000'::uuid", "500"],
    ),
    roles(
        "FROM orders WHERE job_id >= $1 AND job_id < $2 OFFSET 0) AS completed",
        reads(3 * JOBS),
        &[
            "'01900000-0000-7000-8000-000000010000'::uuid",
            "'01900000-0000-7000-8000-0000000101f4'::uuid",
            "'sales-stats'",
        ],
    ),
    roles(
        "SELECT job_id FROM cancellations WHERE job_id >= $1 ORDER BY job_id OFFSET",
        reads(JOBS),
        &["'01910000-0000-7000-8000-000000010000'::uuid", "500"],
    ),
    roles(
        "FROM cancellations WHERE job_id >= $1 AND job_id < $2 OFFSET 0) AS cancelled",
        reads(4 * JOBS),
        &[
            "'01910000-0000-7000-8000-000000010000'::uuid",
            "'01910000-0000-7000-8000-0000000101f4'::uuid",
            "'sales-stats'",
        ],
    ),
    roles(
        "SELECT completed_at FROM orders WHERE completed_at >= $1 ORDER BY completed_at OFFSET",
        reads(JOBS),
        &["timestamptz '2026-04-01'", "500"],
    ),
    roles(
        "sum(items.quantity * counted.times)",
        reads(5 * 1_440),
        &[
            "timestamptz '2026-04-01'",
            "timestamptz '2026-04-02'",
            "'Asia/Seoul'",
            "date '2026-04-01'",
            "'sales-stats'",
        ],
    ),
    roles("FROM product_sales WHERE day = $1", reads(2_000), &["date '2026-04-01'"]),
    roles(
        "WITH drift AS MATERIALIZED",
        writes(2 * JOBS),
        &[
            "date '2026-04-01'",
            "(SELECT array_agg(n) FROM generate_series(1, 500) AS n)",
            ONES,
            "(SELECT array_agg(1000) FROM generate_series(1, 500))",
            ONES,
            ONES,
        ],
    ),
    // Purging, by the batch.
    roles(
        "SELECT job_id FROM job_outcomes WHERE job_id >= $1 ORDER BY job_id OFFSET",
        reads(JOBS),
        &["'01900000-0000-7000-8000-000000010000'::uuid", "500"],
    ),
    roles(
        "DELETE FROM job_outcomes WHERE job_id = ANY(ARRAY(",
        reads(JOBS),
        &[
            "'01900000-0000-7000-8000-000000010000'::uuid",
            "'01900000-0000-7000-8000-0000000101f4'::uuid",
        ],
    ),
    roles(
        "DELETE FROM job_mentions",
        reads(8 * JOBS),
        &[
            "'01900000-0000-7000-8000-000000010000'::uuid",
            "'01900000-0000-7000-8000-0000000101f4'::uuid",
        ],
    ),
    roles(
        "WHERE (consumer, event_id) >= ($1, $2)",
        reads(JOBS),
        &["'sales-stats'", "'01900000-0000-7000-8000-000000010000'::uuid", "500"],
    ),
    roles(
        "DELETE FROM event_inbox",
        reads(JOBS),
        &[
            "'sales-stats'",
            "'01900000-0000-7000-8000-000000010000'::uuid",
            "'01900000-0000-7000-8000-0000000101f4'::uuid",
        ],
    ),
    roles("DELETE FROM idempotent_answers WHERE ctid", reads(2_000), &["10", "10", "now()"]),
    // Before a sale.
    roles("starts_at AS \"starts_at?\", ends_at AS", reads(1), &["1"]),
    roles("on_sale_from AS starts_at", reads(1), &["1"]),
];

const FEW_LINES: &str = "as many rows as there are lines, pins and workers: some hundred at most";
const WHOLE: &str = "looks at the whole table on purpose: an operator's command";
const ONCE: &str = "makes sample data, once";
const NO_TABLE: &str = "reads no table that grows";
const DAILY: &str = "a table with a row or two per day, of which only the last are kept";

/// Statements that need no bound, and why.
pub(crate) const EXCEPTIONS: &[(&str, &str)] = &[
    ("pg_relation_size('idempotent_answers')", NO_TABLE),
    ("SELECT now() AT TIME ZONE $1 AS known", NO_TABLE),
    ("SELECT oldest_program FROM schema_compatibility", NO_TABLE),
    ("SELECT setval(sequence, nextval(sequence)", NO_TABLE),
    ("FROM pg_advisory_xact_lock($1)", NO_TABLE),
    ("SELECT pg_xact_status", NO_TABLE),
    ("SELECT (now() AT TIME ZONE $1)::date - ago", NO_TABLE),
    ("AS \"first!\", ($1::date + 1)", NO_TABLE),
    ("SET LOCAL lock_timeout", NO_TABLE),
    ("LOCK TABLE event_inbox", NO_TABLE),
    ("INSERT INTO daily_runs (job, day) SELECT 'begin-rebuild-stats'", DAILY),
    ("INSERT INTO daily_runs (job, day) VALUES ('rebuild-stats'", DAILY),
    ("INSERT INTO daily_runs (job, day) VALUES ('purge'", DAILY),
    ("INSERT INTO daily_runs (job, day) VALUES ('close-day'", DAILY),
    ("DELETE FROM daily_runs", DAILY),
    ("FILTER (WHERE job = 'close-day') AS closed", DAILY),
    ("AS \"checked!\"", WHOLE),
    ("FROM dead_letters WHERE discarded_at IS NULL ORDER BY id", WHOLE),
    ("FROM dead_letters WHERE discarded_at IS NULL) AS waiting", WHOLE),
    ("WHERE redrive_requested_at IS NULL AND discarded_at IS NULL", WHOLE),
    ("WHERE discarded_at IS NULL AND ($1::bigint IS NULL OR id = $1)", WHOLE),
    ("WITH new_users AS", ONCE),
    ("INSERT INTO products (id, name, price, stock, stocked) SELECT", ONCE),
    ("INSERT INTO coupons (id, name", ONCE),
    ("SELECT setval(name", ONCE),
    ("SELECT family, generation, line, naming FROM partition_leases", FEW_LINES),
    ("UPDATE routing SET partitions", FEW_LINES),
    ("WITH released AS (UPDATE partition_leases", FEW_LINES),
    ("SELECT key FROM pins", FEW_LINES),
    ("UPDATE partition_leases SET ended_at = NULL", FEW_LINES),
    ("INSERT INTO workers", FEW_LINES),
    ("SELECT family, key, created_at", FEW_LINES),
    ("INSERT INTO partition_leases", FEW_LINES),
    ("SELECT partitions, line_capacity, generation,", FEW_LINES),
    ("UPDATE partition_leases SET drained_at", FEW_LINES),
    ("UPDATE partition_leases SET owner = NULL WHERE family", FEW_LINES),
    ("WITH free AS ( SELECT family, generation, line FROM partition_leases WHERE", FEW_LINES),
    ("SELECT epoch FROM partition_leases", FEW_LINES),
    ("UPDATE routing SET generation", FEW_LINES),
    ("FROM pg_stat_activity WHERE datname", NO_TABLE),
    ("AS \"alive!\" FROM workers", FEW_LINES),
    ("AS idle FROM partition_leases", FEW_LINES),
    ("FROM line_reports JOIN line_progress USING", FEW_LINES),
    ("pg_try_advisory_xact_lock", NO_TABLE),
    ("SELECT pg_notify('outbox', '')", NO_TABLE),
    ("current_setting('transaction_read_only')", NO_TABLE),
    (
        "SELECT family, generation, line FROM partition_leases JOIN UNNEST($3::int[], $4::text[]) AS wanted",
        FEW_LINES,
    ),
    ("INSERT INTO line_reports", FEW_LINES),
    ("passed FROM partition_leases AS l JOIN routing", FEW_LINES),
    ("INSERT INTO line_arrivals", FEW_LINES),
    ("DELETE FROM line_tellers", FEW_LINES),
    ("WITH served AS MATERIALIZED", FEW_LINES),
    ("AS served (k, g, l, position)", FEW_LINES),
    ("INSERT INTO pins", FEW_LINES),
    ("WITH forgotten AS ( DELETE FROM line_reports", FEW_LINES),
    ("UPDATE partition_leases SET opened_at", FEW_LINES),
    ("SELECT FROM routing WHERE family = $1 FOR UPDATE", FEW_LINES),
    ("DELETE FROM pins", FEW_LINES),
    ("FROM halts WHERE family = $1", FEW_LINES),
    ("INSERT INTO halts", FEW_LINES),
];
