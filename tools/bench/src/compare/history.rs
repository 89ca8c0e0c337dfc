//! A database with a history.

use sqlx::{PgConnection, PgPool};

/// Fills it with so many coupons in users' hands, and the outcome of each. The campaigns are as large
/// as the number of users; constraints and indexes are made afterwards, which is quicker.
pub(super) async fn fill(pool: &PgPool, rows: i64) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    sqlx::raw_sql(
            "SET maintenance_work_mem = '256MB';
             ALTER TABLE user_coupons
                 DISABLE TRIGGER user_coupons_references,
                 DROP CONSTRAINT user_coupons_one_per_user, DROP CONSTRAINT user_coupons_issue_number_key",
        )
        .execute(&mut *connection)
        .await?;
    // Ids of the large campaigns are out of the way of those that a measurement makes.
    for statement in [
        "INSERT INTO coupons (id, name, discount_type, discount_value, total, issued, starts_at, ends_at)
         SELECT 1000000 + n, 'History', 'fixed', 1000, users, LEAST(users, $1 - n * users),
                now() - interval '2 days', now() - interval '1 day'
         FROM (SELECT count(*) AS users FROM users) AS counted,
              generate_series(0, ($1 - 1) / users) AS n",
        "INSERT INTO user_coupons (id, user_id, coupon_id, issue_number, issued_at)
         OVERRIDING SYSTEM VALUE
         SELECT n + 1, n % users + 1, 1000000 + n / users, n % users + 1, now() - interval '1 day'
         FROM (SELECT count(*) AS users FROM users) AS counted, generate_series(0, $1 - 1) AS n",
        "SELECT setval(pg_get_serial_sequence('user_coupons', 'id'), $1)",
    ] {
        sqlx::query(statement).bind(rows).execute(&mut *connection).await?;
    }
    record(&mut connection, rows).await?;
    sqlx::raw_sql(
        "ALTER TABLE user_coupons
                 ADD CONSTRAINT user_coupons_one_per_user UNIQUE (user_id, coupon_id),
                 ADD CONSTRAINT user_coupons_issue_number_key UNIQUE (coupon_id, issue_number),
                 ENABLE TRIGGER user_coupons_references",
    )
    .execute(&mut *connection)
    .await?;
    sqlx::raw_sql("VACUUM (ANALYZE) user_coupons, job_outcomes, coupons")
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// A coupon of this campaign for each of the users from 1 to `users`, as after a drop; nobody holds any
/// yet.
pub(super) async fn hand_out(pool: &PgPool, campaign: i64, users: i64) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    for statement in [
        "UPDATE coupons SET issued = $2 WHERE id = $1",
        "INSERT INTO user_coupons (user_id, coupon_id, issue_number)
         SELECT n, $1, n FROM generate_series(1, $2) AS n",
    ] {
        sqlx::query(statement).bind(campaign).bind(users).execute(&mut *transaction).await?;
    }
    record(&mut transaction, users).await?;
    transaction.commit().await
}

/// The outcomes that so many coupons came from; the audit asks for them. Time-ordered ids of the day
/// before, as the API makes them.
async fn record(connection: &mut PgConnection, coupons: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO job_outcomes (job_id, user_id, kind, status, result, settled_at)
         SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - 86400000 + id / 1000), 12, '0')
                 || '7' || lpad(to_hex(id % 1000), 3, '0') || '8' || lpad(to_hex(id), 15, '0'))::uuid,
                user_id, 'issue-coupon', 'succeeded',
                jsonb_build_object('userCouponId', id, 'couponId', coupon_id, 'issueNumber', issue_number),
                now() - interval '1 day'
         FROM user_coupons WHERE id <= $1 ORDER BY id",
    )
    .bind(coupons)
    .execute(connection)
    .await
    .map(drop)
}
