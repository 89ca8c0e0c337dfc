//! Sample data for development, demo and tests. Idempotent: what exists stays as it is.

use sqlx::PgPool;

/// The opening balance of a sample user, in won.
const OPENING_BALANCE: i64 = 1_000_000;

/// Creates users 1..=`users` with an opening balance, products 1..=100, and coupons 1 (fixed), 2 (percent with a
/// cap), 3 (ended) and 4 (not started).
///
/// # Errors
/// The database's.
pub async fn create(pool: &PgPool, users: i64) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query!(
        "WITH new_users AS (
             INSERT INTO users (id, name, email)
             SELECT n, 'User ' || n, 'user' || n || '@example.com' FROM generate_series(1, $1::bigint) AS n
             ON CONFLICT ON CONSTRAINT users_pkey DO NOTHING
             RETURNING id
         ), new_balances AS (
             INSERT INTO balances (user_id, amount) SELECT id, $2 FROM new_users
         )
         INSERT INTO balance_transactions (user_id, kind, amount, balance_after)
         SELECT id, 'charge', $2, $2 FROM new_users",
        users,
        OPENING_BALANCE,
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!(
        "INSERT INTO coupons (id, name, discount_type, discount_value, max_discount, total, starts_at, ends_at)
         VALUES
           (1, '1,000 won off',           'fixed',   1000, NULL, 1000,  now() - interval '1 day',  now() + interval '1 year'),
           (2, '10% off, at most 5,000',  'percent', 10,   5000, 10000, now() - interval '1 day',  now() + interval '1 year'),
           (3, 'Last season',             'fixed',   1000, NULL, 1000,  now() - interval '2 days', now() - interval '1 day'),
           (4, 'Next season',             'fixed',   1000, NULL, 1000,  now() + interval '1 year', now() + interval '2 years')
         ON CONFLICT ON CONSTRAINT coupons_pkey DO NOTHING",
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!(
        "INSERT INTO products (id, name, price, stock, stocked)
         SELECT n, 'Product ' || n, 1000 * n, 10000, 10000 FROM generate_series(1, 100) AS n
         ON CONFLICT ON CONSTRAINT products_pkey DO NOTHING",
    )
    .execute(&mut *transaction)
    .await?;
    // Explicit ids do not move the sequences; ids that operators gave by hand are left to them.
    sqlx::query!(
        "SELECT setval(name, GREATEST(pg_sequence_last_value(name::regclass), least)) AS moved
         FROM (VALUES (pg_get_serial_sequence('users', 'id'), NULLIF($1::bigint, 0)),
                      (pg_get_serial_sequence('products', 'id'), 100),
                      (pg_get_serial_sequence('coupons', 'id'), 4)) AS sequences (name, least)",
        users,
    )
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await
}
