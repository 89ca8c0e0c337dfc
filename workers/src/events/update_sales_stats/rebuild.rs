//! The recount: what the statistics should be, from the completed orders.
//!
//! Counting goes on meanwhile and waits for nothing: what is compared is one snapshot, read in pieces, and
//! what differs is repaired where it is still as it was then. An instant belongs to the day that a clock of
//! the business shows, also where it shows an hour twice.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use firstcome_contract::job::JobId;
use firstcome_process::database::Pool;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    CONSUMER,
    count_once::{Sale, count_once},
};
use crate::database::answered;

/// The most orders that one statement looks through, so that it ends in time.
const MAX_ORDERS: i64 = 1_000;
/// The most notes that one statement deletes, so that it ends in time.
const MAX_NOTES: i64 = 5_000;
/// How often a day is compared anew because somebody has counted something of it in between.
const MAX_RACES: u32 = 10;
/// The most by which a clock is set: so far beyond the two midnights of the calendar may a day reach.
const MAX_CLOCK_CHANGE: TimeDelta = TimeDelta::hours(3);

/// A count that was not what the orders say, and was repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The day of the business time zone.
    pub day: NaiveDate,
    /// The id of the product.
    pub product_id: i64,
    /// Quantity and amount (won) as they were counted.
    pub counted: (i64, i64),
    /// Quantity and amount (won) as the completed orders say.
    pub sold: (i64, i64),
}

/// Quantity and amount (won) by the product's id.
type Counts = BTreeMap<i64, (i64, i64)>;

/// Recounts the last `days` days and today (of the business time zone), repairs what differs and
/// tells it.
///
/// # Errors
/// The database's; what was repaired by then stays so.
pub async fn rebuild(pool: &Pool, time_zone: &str, days: i32) -> Result<Vec<Drift>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let drifts = async {
        let days = last_days(&mut connection, time_zone, days).await?;
        rebuild_on(&mut connection, time_zone, &days).await
    };
    let drifts = drifts.await;
    connection.judge(Ok(drifts))
}

/// The same once per business day, after midnight; `None` if it is not due, or another process does it.
pub(super) async fn rebuild_daily(
    pool: &Pool,
    time_zone: &str,
    days: i32,
) -> Result<Option<Vec<Drift>>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let drifts = rebuild_if_due(&mut connection, time_zone, days).await;
    connection.judge(Ok(drifts))
}

async fn rebuild_if_due(
    on: &mut PgConnection,
    time_zone: &str,
    days: i32,
) -> Result<Option<Vec<Drift>>, sqlx::Error> {
    let days = last_days(on, time_zone, days).await?;
    let Some(today) = days.first() else { return Ok(None) };
    // Whoever begins has some time for it. To do it twice would be a waste, and no more.
    let begun = sqlx::query!(
        "INSERT INTO daily_runs (job, day)
         SELECT 'begin-rebuild-stats', $1
         WHERE NOT EXISTS (SELECT FROM daily_runs WHERE job = 'rebuild-stats' AND day = $1)
         ON CONFLICT ON CONSTRAINT daily_runs_pkey
         DO UPDATE SET ran_at = now() WHERE daily_runs.ran_at < now() - interval '10 minutes'",
        today,
    );
    if answered(begun.execute(&mut *on)).await?.rows_affected() == 0 {
        return Ok(None);
    }
    let drifts = rebuild_on(on, time_zone, &days).await?;
    let done = sqlx::query!(
        "INSERT INTO daily_runs (job, day) VALUES ('rebuild-stats', $1)
         ON CONFLICT ON CONSTRAINT daily_runs_pkey DO NOTHING",
        today,
    );
    answered(done.execute(on)).await?;
    Ok(Some(drifts))
}

async fn rebuild_on(
    on: &mut PgConnection,
    time_zone: &str,
    days: &[NaiveDate],
) -> Result<Vec<Drift>, sqlx::Error> {
    let drifts = recount(on, time_zone, days).await?;
    if let Some(first) = days.iter().min() {
        let since = instants(on, time_zone, *first).await?.start;
        count_missing(on, time_zone, JobId::lowest_at(since)..Uuid::max()).await?;
    }
    Ok(drifts)
}

/// Closes all days of submission up to `last` (see `purge`): from now on their events are not added.
/// So what is still on its way is counted first, of what was `submitted` since the last time.
///
/// # Errors
/// The database's; nothing is closed then.
pub async fn close(
    on: &mut PgConnection,
    time_zone: &str,
    submitted: Range<DateTime<Utc>>,
    last: NaiveDate,
) -> Result<(), sqlx::Error> {
    let jobs = JobId::lowest_at(submitted.start)..JobId::lowest_at(submitted.end);
    count_missing(on, time_zone, jobs).await?;
    let mut transaction = answered(on.begin()).await?;
    // Whoever counts waits for whoever waits for this.
    let patience = sqlx::query!("SET LOCAL lock_timeout = '1s'").execute(&mut *transaction);
    answered(patience).await?;
    // Whoever counts at this moment has finished, and who comes sees that the day is closed.
    let lock = sqlx::query!("LOCK TABLE event_inbox IN SHARE ROW EXCLUSIVE MODE");
    answered(lock.execute(&mut *transaction)).await?;
    let closed = sqlx::query!(
        "INSERT INTO daily_runs (job, day) VALUES ('close-day', $1)
         ON CONFLICT ON CONSTRAINT daily_runs_pkey DO NOTHING",
        last,
    );
    answered(closed.execute(&mut *transaction)).await?;
    answered(transaction.commit()).await
}

/// Deletes the notes that these events were counted, a piece at a time; how many there were. Each goes on
/// where the one before ended: while a long snapshot is open, the entries of what was deleted stay.
///
/// # Errors
/// The database's; what was deleted by then stays so.
pub async fn forget(on: &mut PgConnection, events: Range<Uuid>) -> Result<u64, sqlx::Error> {
    let (mut from, mut count) = (events.start, 0);
    while from < events.end {
        // Without an upper bound there is but one way to find it.
        let next = sqlx::query!(
            "SELECT consumer, event_id FROM event_inbox WHERE (consumer, event_id) >= ($1, $2)
             ORDER BY consumer, event_id OFFSET $3 LIMIT 1",
            CONSUMER,
            from,
            MAX_NOTES,
        );
        let next = answered(next.fetch_optional(&mut *on)).await?;
        let next = next.filter(|next| next.consumer == CONSUMER);
        let to = next.map_or(events.end, |next| next.event_id.min(events.end));
        let deleted = sqlx::query!(
            // By where they are: these rows never move.
            "DELETE FROM event_inbox WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM event_inbox WHERE consumer = $1 AND event_id >= $2 AND event_id < $3
                 ORDER BY event_id FOR UPDATE))",
            CONSUMER,
            from,
            to,
        );
        count += answered(deleted.execute(&mut *on)).await?.rows_affected();
        from = to;
    }
    Ok(count)
}

pub(super) fn log(drifts: &[Drift]) {
    for drift in drifts {
        tracing::warn!(?drift, "the sales statistics had drifted; repaired");
    }
    tracing::info!(drifts = drifts.len(), "the sales statistics were recounted");
}

/// Today and the days before it.
async fn last_days(
    on: &mut PgConnection,
    time_zone: &str,
    days: i32,
) -> Result<Vec<NaiveDate>, sqlx::Error> {
    let days = sqlx::query_scalar!(
        r#"SELECT (now() AT TIME ZONE $1)::date - ago AS "day!" FROM generate_series(0, $2::int) AS ago"#,
        time_zone,
        days,
    );
    answered(days.fetch_all(on)).await
}

/// Counts the orders of these jobs whose events were not counted, be they on their way or lost.
async fn count_missing(
    on: &mut PgConnection,
    time_zone: &str,
    jobs: Range<Uuid>,
) -> Result<(), sqlx::Error> {
    let (mut from, mut orders) = (jobs.start, 0);
    while from < jobs.end {
        // Without an upper bound there is but one way to find it.
        let next = sqlx::query_scalar!(
            "SELECT job_id FROM orders WHERE job_id >= $1 ORDER BY job_id OFFSET $2 LIMIT 1",
            from,
            MAX_ORDERS,
        );
        let next = answered(next.fetch_optional(&mut *on)).await?;
        let to = next.map_or(jobs.end, |next| next.min(jobs.end));
        let missing = sqlx::query_as!(
            Sale,
            r#"SELECT completed.job_id AS "event!", completed.completed_at AS "at!", items.product_id AS "product!",
                      items.quantity AS "quantity!", items.amount AS "amount!"
               FROM (SELECT id, job_id, created_at, completed_at FROM orders
                     WHERE job_id >= $1 AND job_id < $2 OFFSET 0) AS completed
               LEFT JOIN LATERAL (
                   SELECT event_id FROM event_inbox WHERE consumer = $3 AND event_id = completed.job_id OFFSET 0
               ) AS note ON true
               CROSS JOIN LATERAL (
                   SELECT product_id, quantity, unit_price * quantity AS amount FROM order_items
                   WHERE order_id = completed.id OFFSET 0
               ) AS items
               WHERE note.event_id IS NULL AND (completed.created_at AT TIME ZONE 'UTC')::date
                     > (SELECT COALESCE(max(day), '-infinity') FROM daily_runs WHERE job = 'close-day')"#,
            from,
            to,
            CONSUMER,
        );
        let missing: Vec<Sale> = answered(missing.fetch_all(&mut *on)).await?;
        if !missing.is_empty() {
            orders += missing.iter().map(|sale| sale.event).collect::<HashSet<_>>().len();
            count_once(on, &missing, time_zone).await?;
        }
        from = to;
    }
    if orders > 0 {
        tracing::info!(orders, "orders were counted before their events came");
    }
    Ok(())
}

/// Repairs what was counted of these days where it is not what the orders say that were counted; what that
/// was.
pub(super) async fn recount(
    on: &mut PgConnection,
    time_zone: &str,
    days: &[NaiveDate],
) -> Result<Vec<Drift>, sqlx::Error> {
    let mut repaired = Vec::new();
    for day in days {
        for _ in 0..MAX_RACES {
            let mut drifts = drifts(on, time_zone, *day).await?;
            let all = drifts.len();
            let done = repair(on, *day, &drifts).await?;
            drifts.retain(|drift| done.contains(&drift.product_id));
            let is_done = drifts.len() == all;
            repaired.append(&mut drifts);
            if is_done {
                break;
            }
        }
    }
    Ok(repaired)
}

/// The instants of a day, and some around them.
async fn instants(
    on: &mut PgConnection,
    time_zone: &str,
    day: NaiveDate,
) -> Result<Range<DateTime<Utc>>, sqlx::Error> {
    let midnights = sqlx::query!(
        r#"SELECT $1::date::timestamp AT TIME ZONE $2 AS "first!", ($1::date + 1)::timestamp AT TIME ZONE $2 AS "last!""#,
        day,
        time_zone,
    );
    let midnights = answered(midnights.fetch_one(on)).await?;
    Ok(midnights.first - MAX_CLOCK_CHANGE..midnights.last + MAX_CLOCK_CHANGE)
}

/// Where the counts of a day are not the sums of the orders that were counted, in one snapshot.
async fn drifts(
    on: &mut PgConnection,
    time_zone: &str,
    day: NaiveDate,
) -> Result<Vec<Drift>, sqlx::Error> {
    let begun = on.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY");
    let mut snapshot = answered(begun).await?;
    let instants = instants(&mut snapshot, time_zone, day).await?;
    let (mut from, mut sold) = (instants.start, Counts::new());
    while from < instants.end {
        // Without an upper bound there is but one way to find it.
        let next = sqlx::query_scalar!(
            "SELECT completed_at FROM orders WHERE completed_at >= $1 ORDER BY completed_at OFFSET $2 LIMIT 1",
            from,
            MAX_ORDERS,
        );
        let next = answered(next.fetch_optional(&mut *snapshot)).await?;
        // The orders of a batch have one instant.
        let next = next.map(|next| next.max(from + TimeDelta::microseconds(1)));
        let to = next.map_or(instants.end, |next| next.min(instants.end));
        // Those of closed days need no note: their events are never added.
        let sums = sqlx::query!(
            r#"SELECT items.product_id AS "product_id!", sum(items.quantity)::bigint AS "quantity!", sum(items.amount)::bigint AS "amount!"
               FROM (SELECT id, job_id, created_at FROM orders
                     WHERE completed_at >= $1 AND completed_at < $2 AND (completed_at AT TIME ZONE $3)::date = $4
                     OFFSET 0) AS completed
               LEFT JOIN LATERAL (
                   SELECT event_id FROM event_inbox WHERE consumer = $5 AND event_id = completed.job_id OFFSET 0
               ) AS note ON true
               CROSS JOIN LATERAL (
                   SELECT product_id, quantity, unit_price * quantity AS amount FROM order_items
                   WHERE order_id = completed.id OFFSET 0
               ) AS items
               WHERE note.event_id IS NOT NULL OR (completed.created_at AT TIME ZONE 'UTC')::date
                     <= (SELECT COALESCE(max(day), '-infinity') FROM daily_runs WHERE job = 'close-day')
               GROUP BY items.product_id"#,
            from,
            to,
            time_zone,
            day,
            CONSUMER,
        );
        for sum in answered(sums.fetch_all(&mut *snapshot)).await? {
            let (quantity, amount) = sold.entry(sum.product_id).or_default();
            *quantity += sum.quantity;
            *amount += sum.amount;
        }
        from = to;
    }
    let counted =
        sqlx::query!("SELECT product_id, quantity, amount FROM product_sales WHERE day = $1", day);
    let counted = answered(counted.fetch_all(&mut *snapshot)).await?;
    answered(snapshot.commit()).await?;
    let counted = counted.into_iter().map(|row| (row.product_id, (row.quantity, row.amount)));
    Ok(compare(day, &counted.collect(), &sold))
}

/// Repairs these counts, unless they are others by now; of which products it did.
async fn repair(
    on: &mut PgConnection,
    day: NaiveDate,
    drifts: &[Drift],
) -> Result<HashSet<i64>, sqlx::Error> {
    if drifts.is_empty() {
        return Ok(HashSet::new());
    }
    let column = |value: fn(&Drift) -> i64| -> Vec<i64> { drifts.iter().map(value).collect() };
    let repaired = sqlx::query_scalar!(
        r#"WITH drift AS MATERIALIZED (
               SELECT * FROM UNNEST($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
                 AS drift (product_id, counted_quantity, counted_amount, quantity, amount)
           ), changed AS (
               UPDATE product_sales SET quantity = drift.quantity, amount = drift.amount FROM drift
               WHERE product_sales.day = $1 AND product_sales.product_id = drift.product_id
                 AND product_sales.quantity = counted_quantity AND product_sales.amount = counted_amount
               RETURNING product_sales.product_id
           ), added AS (
               INSERT INTO product_sales (day, product_id, quantity, amount)
               SELECT $1, product_id, quantity, amount FROM drift
               WHERE counted_quantity = 0 AND counted_amount = 0 ORDER BY product_id
               ON CONFLICT ON CONSTRAINT product_sales_pkey DO NOTHING
               RETURNING product_id
           )
           SELECT product_id AS "product_id!" FROM changed UNION ALL SELECT product_id FROM added"#,
        day,
        &column(|drift| drift.product_id),
        &column(|drift| drift.counted.0),
        &column(|drift| drift.counted.1),
        &column(|drift| drift.sold.0),
        &column(|drift| drift.sold.1),
    );
    Ok(answered(repaired.fetch_all(on)).await?.into_iter().collect())
}

fn compare(day: NaiveDate, counted: &Counts, sold: &Counts) -> Vec<Drift> {
    let mut products: Vec<_> = counted.keys().chain(sold.keys()).copied().collect();
    products.sort_unstable();
    products.dedup();
    let of = |counts: &Counts, product| counts.get(product).copied().unwrap_or_default();
    let drifts = products.iter().map(|product| Drift {
        day,
        product_id: *product,
        counted: of(counted, product),
        sold: of(sold, product),
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
                .map(|(product, quantity)| (*product, (*quantity, quantity * 10)))
                .collect()
        };
        let (counted, sold) =
            (counts(&[(1, 5), (2, 3), (3, 1)]), counts(&[(1, 5), (2, 4), (4, 2)]));
        let drifts = compare(day, &counted, &sold);
        let found: Vec<_> =
            drifts.iter().map(|drift| (drift.product_id, drift.counted.0, drift.sold.0)).collect();
        assert_eq!(found, [(2, 3, 4), (3, 1, 0), (4, 0, 2)]);
    }
}
