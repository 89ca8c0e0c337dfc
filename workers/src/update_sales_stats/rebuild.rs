//! The recount: what the statistics should be, from the completed orders.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use sqlx::{PgConnection, PgPool};

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
    let drifts = rebuild_on(&mut transaction, time_zone, days).await?;
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
    let drifts = rebuild_on(&mut transaction, time_zone, days).await?;
    transaction.commit().await?;
    Ok(Some(drifts))
}

pub(super) fn log(drifts: &[Drift]) {
    for drift in drifts {
        tracing::warn!(?drift, "the sales statistics had drifted; repaired");
    }
    tracing::info!(drifts = drifts.len(), "the sales statistics were recounted");
}

async fn rebuild_on(
    transaction: &mut PgConnection,
    time_zone: &str,
    days: i32,
) -> Result<Vec<Drift>, sqlx::Error> {
    // Nobody counts meanwhile. In the order in which counting takes them.
    sqlx::query!("LOCK TABLE event_inbox, product_sales IN SHARE ROW EXCLUSIVE MODE")
        .execute(&mut *transaction)
        .await?;
    // One snapshot for both: an order is either in this count and noted as counted, or neither.
    let rows = sqlx::query!(
        r#"WITH sold AS MATERIALIZED (
               SELECT orders.job_id, (completed_at AT TIME ZONE $1)::date AS day, product_id, quantity,
                      unit_price * quantity AS amount
               FROM orders JOIN order_items ON order_id = orders.id
               WHERE completed_at >= ((now() AT TIME ZONE $1)::date - $2::int)::timestamp AT TIME ZONE $1
           ), noted AS (
               INSERT INTO event_inbox (consumer, event_id) SELECT DISTINCT $3, job_id FROM sold
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
        "SELECT day, product_id, quantity, amount FROM product_sales
         WHERE day >= (now() AT TIME ZONE $1)::date - $2::int",
        time_zone,
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
