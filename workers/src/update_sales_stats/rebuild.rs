//! The recount: what the statistics should be, from the completed orders.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use firstcome_shared::job::JobId;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::CONSUMER;

/// A count that was not what the orders say, and was repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Of which day.
    pub day: NaiveDate,
    /// Of which product.
    pub product_id: i64,
    /// Quantity and amount that were counted.
    pub counted: (i64, i64),
    /// Quantity and amount that the orders say.
    pub sold: (i64, i64),
}

type Counts = BTreeMap<(NaiveDate, i64), (i64, i64)>;

/// Recounts the last `days` days and today (of the business time zone), repairs what differs and
/// tells it.
///
/// # Errors
/// The database's; nothing is changed then.
pub async fn rebuild(pool: &PgPool, time_zone: &str, days: i32) -> Result<Vec<Drift>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let days = last_days(&mut transaction, time_zone, days).await?;
    let drifts = recount(&mut transaction, time_zone, &days).await?;
    transaction.commit().await?;
    Ok(drifts)
}

/// The same for these days.
pub(super) async fn rebuild_days(
    pool: &PgPool,
    time_zone: &str,
    days: &[NaiveDate],
) -> Result<Vec<Drift>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let drifts = recount(&mut transaction, time_zone, days).await?;
    transaction.commit().await?;
    Ok(drifts)
}

/// The same once per business day, after midnight; `None` if it is not due.
pub(super) async fn rebuild_daily(
    pool: &PgPool,
    time_zone: &str,
    days: i32,
) -> Result<Option<Vec<Drift>>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let due = sqlx::query!(
        "INSERT INTO daily_runs (job, day) VALUES ('rebuild-stats', (now() AT TIME ZONE $1)::date)
         ON CONFLICT ON CONSTRAINT daily_runs_pkey DO NOTHING",
        time_zone,
    )
    .execute(&mut *transaction)
    .await?;
    if due.rows_affected() == 0 {
        return Ok(None);
    }
    let days = last_days(&mut transaction, time_zone, days).await?;
    let drifts = recount(&mut transaction, time_zone, &days).await?;
    transaction.commit().await?;
    Ok(Some(drifts))
}

/// Closes all days of submission up to `last` (see `purge`): from now on their events are not added.
/// So what is still on its way is counted here, among what was submitted since `first`.
///
/// # Errors
/// The database's; nothing is changed then.
pub async fn close(
    pool: &PgPool,
    time_zone: &str,
    first: Option<DateTime<Utc>>,
    last: NaiveDate,
) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    lock(&mut transaction).await?;
    sqlx::query!(
        "INSERT INTO daily_runs (job, day) VALUES ('close-day', $1)
         ON CONFLICT ON CONSTRAINT daily_runs_pkey DO NOTHING",
        last,
    )
    .execute(&mut *transaction)
    .await?;
    let uncounted = sqlx::query_scalar!(
        r#"SELECT DISTINCT (completed_at AT TIME ZONE $1)::date AS "day!" FROM orders
           WHERE job_id >= $2 AND (created_at AT TIME ZONE 'UTC')::date <= $3
             AND NOT EXISTS (SELECT FROM event_inbox WHERE event_id = job_id AND consumer = $4)"#,
        time_zone,
        JobId::lowest_at(first.unwrap_or_default()),
        last,
        CONSUMER,
    )
    .fetch_all(&mut *transaction)
    .await?;
    if !uncounted.is_empty() {
        log(&recount(&mut transaction, time_zone, &uncounted).await?);
    }
    transaction.commit().await
}

/// Deletes at most `limit` notes that an event below `end` was counted; how many there were.
///
/// # Errors
/// The database's.
pub async fn forget(pool: &PgPool, end: Uuid, limit: i64) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        // By where they are: these rows never move.
        "DELETE FROM event_inbox WHERE ctid = ANY(ARRAY(
             SELECT ctid FROM event_inbox WHERE consumer = $1 AND event_id < $2 ORDER BY event_id LIMIT $3 FOR UPDATE))",
        CONSUMER,
        end,
        limit,
    )
    .execute(pool)
    .await?;
    Ok(deleted.rows_affected())
}

pub(super) fn log(drifts: &[Drift]) {
    for drift in drifts {
        tracing::warn!(?drift, "the sales statistics had drifted; repaired");
    }
    tracing::info!(drifts = drifts.len(), "the sales statistics were recounted");
}

async fn last_days(
    transaction: &mut PgConnection,
    time_zone: &str,
    days: i32,
) -> Result<Vec<NaiveDate>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT (now() AT TIME ZONE $1)::date - ago AS "day!" FROM generate_series(0, $2::int) AS ago"#,
        time_zone,
        days,
    )
    .fetch_all(transaction)
    .await
}

/// Nobody counts meanwhile. In the order in which counting takes them.
async fn lock(transaction: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("LOCK TABLE event_inbox, product_sales IN SHARE ROW EXCLUSIVE MODE")
        .execute(transaction)
        .await?;
    Ok(())
}

async fn recount(
    transaction: &mut PgConnection,
    time_zone: &str,
    days: &[NaiveDate],
) -> Result<Vec<Drift>, sqlx::Error> {
    lock(&mut *transaction).await?;
    // One snapshot for both: an order is either in this count and noted as counted, or neither. Those
    // of closed days need no note: their events are never added.
    let rows = sqlx::query!(
        r#"WITH sold AS MATERIALIZED (
               SELECT job_id, created_at, day, product_id, quantity, amount
               FROM UNNEST($2::date[]) AS asked (day)
               CROSS JOIN LATERAL (
                   SELECT id, job_id, created_at FROM orders
                   WHERE completed_at >= day::timestamp AT TIME ZONE $1
                     AND completed_at < (day + 1)::timestamp AT TIME ZONE $1 OFFSET 0
               ) AS completed
               CROSS JOIN LATERAL (
                   SELECT product_id, quantity, unit_price * quantity AS amount FROM order_items WHERE order_id = completed.id OFFSET 0
               ) AS items
           ), noted AS (
               INSERT INTO event_inbox (consumer, event_id)
               SELECT DISTINCT $3, job_id FROM sold
               WHERE (created_at AT TIME ZONE 'UTC')::date
                     > (SELECT COALESCE(max(day), '-infinity') FROM daily_runs WHERE job = 'close-day')
               ON CONFLICT ON CONSTRAINT event_inbox_pkey DO NOTHING
           )
           SELECT day AS "day!", product_id, sum(quantity)::bigint AS "quantity!", sum(amount)::bigint AS "amount!"
           FROM sold GROUP BY day, product_id"#,
        time_zone,
        days,
        CONSUMER,
    )
    .fetch_all(&mut *transaction)
    .await?;
    let sold: Counts = rows
        .into_iter()
        .map(|row| ((row.day, row.product_id), (row.quantity, row.amount)))
        .collect();
    let rows = sqlx::query!(
        "SELECT day, product_id, quantity, amount FROM product_sales WHERE day = ANY($1)",
        days,
    )
    .fetch_all(&mut *transaction)
    .await?;
    let counted: Counts = rows
        .into_iter()
        .map(|row| ((row.day, row.product_id), (row.quantity, row.amount)))
        .collect();

    let drifts = compare(&counted, &sold);
    let column = |value: fn(&Drift) -> i64| -> Vec<i64> { drifts.iter().map(value).collect() };
    let day: Vec<NaiveDate> = drifts.iter().map(|drift| drift.day).collect();
    sqlx::query!(
        "INSERT INTO product_sales (day, product_id, quantity, amount)
         SELECT * FROM UNNEST($1::date[], $2::bigint[], $3::bigint[], $4::bigint[])
         ON CONFLICT ON CONSTRAINT product_sales_pkey
         DO UPDATE SET quantity = excluded.quantity, amount = excluded.amount",
        &day,
        &column(|drift| drift.product_id),
        &column(|drift| drift.sold.0),
        &column(|drift| drift.sold.1),
    )
    .execute(transaction)
    .await?;
    Ok(drifts)
}

fn compare(counted: &Counts, sold: &Counts) -> Vec<Drift> {
    let mut keys: Vec<_> = counted.keys().chain(sold.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    let of = |counts: &Counts, key| counts.get(key).copied().unwrap_or_default();
    let drifts = keys.iter().map(|key| Drift {
        day: key.0,
        product_id: key.1,
        counted: of(counted, key),
        sold: of(sold, key),
    });
    drifts.filter(|drift| drift.counted != drift.sold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_found() {
        let day = NaiveDate::from_ymd_opt(2026, 1, 31).unwrap();
        let counts = |counts: &[(i64, i64)]| -> Counts {
            counts
                .iter()
                .map(|(product, quantity)| ((day, *product), (*quantity, quantity * 10)))
                .collect()
        };
        let drifts =
            compare(&counts(&[(1, 5), (2, 3), (3, 1)]), &counts(&[(1, 5), (2, 4), (4, 2)]));
        let found: Vec<_> =
            drifts.iter().map(|drift| (drift.product_id, drift.counted.0, drift.sold.0)).collect();
        assert_eq!(found, [(2, 3, 4), (3, 1, 0), (4, 0, 2)]);
    }
}
