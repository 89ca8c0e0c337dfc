//! Counting events, each once.

use std::collections::HashSet;

use firstcome_shared::{event::OrderCompleted, job::JobId};
use sqlx::PgPool;

use super::{CONSUMER, rebuild};

/// Adds the sales of these events, except of those that were counted before: inbox and count are
/// one statement. Whether an event of a closed day (see `purge`) was counted, the inbox no longer
/// knows: its orders' day is counted anew.
pub(super) async fn count(
    pool: &PgPool,
    events: &[OrderCompleted],
    time_zone: &str,
) -> Result<(), sqlx::Error> {
    // A batch can hold an event twice.
    let mut seen = HashSet::new();
    let (mut ids, mut submitted, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let (mut products, mut quantities, mut amounts) = (Vec::new(), Vec::new(), Vec::new());
    for event in events.iter().filter(|event| seen.insert(event.id)) {
        for line in &event.data.lines {
            ids.push(event.id);
            submitted.push(JobId::from(event.id).submitted_at().date_naive());
            times.push(event.time);
            products.push(line.product_id.get());
            quantities.push(line.quantity);
            amounts.push(line.unit_price.times(line.quantity).get());
        }
    }
    // In key order, so that two processes cannot deadlock on the same products. Whoever closes a day
    // waits for this statement or is seen by it: its lock on the inbox is older than its snapshot.
    let closed = sqlx::query_scalar!(
        r#"WITH sold AS MATERIALIZED (
             SELECT event_id, at, product_id, quantity, amount, submitted <= closed AS late
             FROM UNNEST($2::uuid[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::bigint[], $8::date[])
               AS sold (event_id, at, product_id, quantity, amount, submitted),
               (SELECT COALESCE(max(day), '-infinity') AS closed FROM daily_runs WHERE job = 'close-day') AS runs
         ), fresh AS (
             INSERT INTO event_inbox (consumer, event_id)
             SELECT DISTINCT $1, event_id FROM sold WHERE NOT late ORDER BY event_id
             ON CONFLICT ON CONSTRAINT event_inbox_pkey DO NOTHING
             RETURNING event_id
         ), counted AS (
             INSERT INTO product_sales (day, product_id, quantity, amount)
             SELECT (at AT TIME ZONE $7)::date, product_id, sum(quantity), sum(amount)
             FROM sold JOIN fresh USING (event_id)
             GROUP BY 1, 2 ORDER BY 1, 2
             ON CONFLICT ON CONSTRAINT product_sales_pkey
             DO UPDATE SET quantity = product_sales.quantity + excluded.quantity,
                           amount = product_sales.amount + excluded.amount
         )
         SELECT DISTINCT (at AT TIME ZONE $7)::date AS "day!" FROM sold WHERE late"#,
        CONSUMER,
        &ids,
        &times,
        &products,
        &quantities,
        &amounts,
        time_zone,
        &submitted,
    )
    .fetch_all(pool)
    .await?;
    if !closed.is_empty() {
        rebuild::log(&rebuild::rebuild_days(pool, time_zone, &closed).await?);
    }
    Ok(())
}
