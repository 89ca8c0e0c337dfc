//! The statement that counts sales, those of each event once.

use chrono::NaiveDate;
use firstcome_contract::job::JobId;
use sqlx::PgConnection;

use super::{CONSUMER, sale::Sale};
use crate::database::answered;

/// Adds these sales, except those of events that were counted before: inbox and count are
/// one statement. Whether an event of a closed day (see `purge`) was counted, the inbox no longer
/// knows: the days of its orders are returned, to be counted anew.
pub(super) async fn count_once(
    on: &mut PgConnection,
    sales: &[Sale],
    time_zone: &str,
) -> Result<Vec<NaiveDate>, sqlx::Error> {
    let (mut ids, mut submitted, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let (mut products, mut quantities, mut amounts) = (Vec::new(), Vec::new(), Vec::new());
    for sale in sales {
        ids.push(sale.event);
        submitted.push(JobId::from(sale.event).submitted_at().date_naive());
        times.push(sale.at);
        products.push(sale.product);
        quantities.push(sale.quantity);
        amounts.push(sale.amount);
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
    );
    answered(closed.fetch_all(on)).await
}
