//! Counting events, each once.

use std::{collections::HashSet, time::Instant};

use chrono::{DateTime, NaiveDate, Utc};
use firstcome_contract::job::JobId;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{CONSUMER, rebuild};
use crate::{
    database::{answered, give_back},
    events::subscribe::{Interrupted, Received, Undeliverable},
    line::{AttemptError, Experience, Parts, Then},
};

/// A line of a completed order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sale {
    /// The event's id, which is that of the order's job.
    pub(super) event: Uuid,
    pub(super) at: DateTime<Utc>,
    pub(super) product: i64,
    pub(super) quantity: i64,
    pub(super) amount: i64,
}

/// Counts these events. Those that the database refuses are found by bisection and returned, each
/// alone; what was counted before an error is not counted again.
pub(super) async fn count(
    pool: &PgPool,
    events: &[Received],
    time_zone: &str,
    size: &mut Experience,
) -> Result<Vec<Undeliverable>, Interrupted> {
    let mut refused = Vec::new();
    let mut parts = Parts::of(events, size);
    while let Some(part) = parts.next() {
        let began = Instant::now();
        let error = match try_count(pool, part, time_zone).await {
            Ok(()) => {
                parts.done(part, began.elapsed());
                continue;
            }
            Err(error) => AttemptError::from(error),
        };
        let events = part.len();
        match (parts.failed(part, &error), part) {
            // Less at a time may be done in time.
            (Then::Retry(_), _) if error.is_timeout() && events > 1 => {
                tracing::warn!(%error, events, "events not counted in time, fewer at once");
            }
            (Then::Retry(_) | Then::LookUpKeys, _) => return Err(Interrupted(error.to_string())),
            (Then::GiveUp(_), [received]) => {
                let reason = error.to_string();
                tracing::error!(event = %received.event.id, reason, "an event cannot be counted, dead-lettering it");
                refused.push(Undeliverable { received: received.clone(), reason });
            }
            (Then::GiveUp(_) | Then::Bisect, _) => {
                tracing::warn!(%error, events, "events refused by the database, bisecting");
            }
        }
    }
    Ok(refused)
}

async fn try_count(pool: &PgPool, events: &[Received], time_zone: &str) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let counted = count_on(&mut connection, events, time_zone).await;
    give_back(pool, connection, counted)
}

async fn count_on(
    on: &mut PgConnection,
    events: &[Received],
    time_zone: &str,
) -> Result<(), sqlx::Error> {
    // A batch can hold an event twice.
    let mut seen = HashSet::new();
    let new = events.iter().map(|received| &received.event).filter(|event| seen.insert(event.id));
    let sales = new.flat_map(|event| {
        event.data.lines.iter().map(|line| Sale {
            event: event.id,
            at: event.time,
            product: line.product_id.get(),
            quantity: line.quantity,
            amount: line.unit_price.times(line.quantity).get(),
        })
    });
    let sales: Vec<Sale> = sales.collect();
    let closed = add(on, &sales, time_zone).await?;
    if !closed.is_empty() {
        rebuild::log(&rebuild::recount(on, time_zone, &closed).await?);
    }
    Ok(())
}

/// Adds these sales, except those of events that were counted before: inbox and count are
/// one statement. Whether an event of a closed day (see `purge`) was counted, the inbox no longer
/// knows: its orders' days are returned, to be counted anew.
pub(super) async fn add(
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
