//! Counting events, each once.

use std::collections::HashSet;

use firstcome_shared::event::OrderCompleted;
use sqlx::PgPool;

use super::CONSUMER;

/// Adds the sales of these events, except of those that were counted before: inbox and count are
/// one statement.
pub(super) async fn count(
    pool: &PgPool,
    events: &[OrderCompleted],
    time_zone: &str,
) -> Result<(), sqlx::Error> {
    // A batch can hold an event twice.
    let mut seen = HashSet::new();
    let (mut ids, mut times, mut products) = (Vec::new(), Vec::new(), Vec::new());
    let (mut quantities, mut amounts) = (Vec::new(), Vec::new());
    for event in events.iter().filter(|event| seen.insert(event.id)) {
        for line in &event.data.lines {
            ids.push(event.id);
            times.push(event.time);
            products.push(line.product_id.get());
            quantities.push(line.quantity);
            amounts.push(line.unit_price.times(line.quantity).get());
        }
    }
    // In key order, so that two processes cannot deadlock on the same products.
    sqlx::query!(
        "WITH fresh AS (
             INSERT INTO event_inbox (consumer, event_id)
             SELECT DISTINCT $1, event_id FROM UNNEST($2::uuid[]) AS batch (event_id) ORDER BY event_id
             ON CONFLICT ON CONSTRAINT event_inbox_pkey DO NOTHING
             RETURNING event_id
         )
         INSERT INTO product_sales (day, product_id, quantity, amount)
         SELECT (at AT TIME ZONE $7)::date, product_id, sum(quantity), sum(amount)
         FROM UNNEST($2::uuid[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::bigint[])
           AS sold (event_id, at, product_id, quantity, amount)
         JOIN fresh USING (event_id)
         GROUP BY 1, 2 ORDER BY 1, 2
         ON CONFLICT ON CONSTRAINT product_sales_pkey
         DO UPDATE SET quantity = product_sales.quantity + excluded.quantity,
                       amount = product_sales.amount + excluded.amount",
        CONSUMER,
        &ids,
        &times,
        &products,
        &quantities,
        &amounts,
        time_zone,
    )
    .execute(pool)
    .await?;
    Ok(())
}
