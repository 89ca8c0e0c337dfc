//! What was counted of a day and is not what the orders say: found, and repaired.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use sqlx::{Connection, PgConnection};

use super::MAX_ORDERS;
use crate::{database::answered, events::update_sales_stats::CONSUMER};

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
    /// Quantity and amount (won) as the orders say, less those that were cancelled.
    pub sold: (i64, i64),
}

/// Quantity and amount (won) by the product's id.
type Counts = BTreeMap<i64, (i64, i64)>;

/// Repairs what was counted of these days where it is not what the orders and the cancellations say that were
/// counted; what that was.
pub(crate) async fn recount(
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
pub(super) async fn instants(
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

/// Where the counts of a day are not the sums of what was counted, in one snapshot.
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
        // Those of closed days need no note: their events are never added. How often an order counts: once when it was
        // counted, less once when its cancellation was, which may be before it.
        let sums = sqlx::query!(
            r#"SELECT items.product_id AS "product_id!", sum(items.quantity * counted.times)::bigint AS "quantity!",
                      sum(items.amount * counted.times)::bigint AS "amount!"
               FROM (SELECT id, job_id, created_at FROM orders
                     WHERE completed_at >= $1 AND completed_at < $2 AND (completed_at AT TIME ZONE $3)::date = $4
                     OFFSET 0) AS completed
               CROSS JOIN (SELECT COALESCE(max(day), '-infinity') AS day FROM daily_runs WHERE job = 'close-day') AS closed
               LEFT JOIN LATERAL (
                   SELECT event_id FROM event_inbox WHERE consumer = $5 AND event_id = completed.job_id OFFSET 0
               ) AS sold ON true
               LEFT JOIN LATERAL (
                   SELECT job_id, submitted_at FROM cancellations WHERE order_id BETWEEN completed.id AND completed.id
                   ORDER BY order_id LIMIT 1
               ) AS cancelled ON true
               LEFT JOIN LATERAL (
                   SELECT event_id FROM event_inbox WHERE consumer = $5 AND event_id = cancelled.job_id OFFSET 0
               ) AS taken_back ON true
               CROSS JOIN LATERAL (
                   SELECT (sold.event_id IS NOT NULL OR (completed.created_at AT TIME ZONE 'UTC')::date <= closed.day)::int
                        - ((taken_back.event_id IS NOT NULL
                            OR (cancelled.submitted_at AT TIME ZONE 'UTC')::date <= closed.day) IS TRUE)::int AS times
               ) AS counted
               CROSS JOIN LATERAL (
                   SELECT product_id, quantity, unit_price * quantity AS amount FROM order_items
                   WHERE order_id BETWEEN completed.id AND completed.id ORDER BY order_id, product_id
               ) AS items
               WHERE counted.times <> 0
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
               SELECT $1::date AS of, * FROM UNNEST($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
                 AS drift (product_id, counted_quantity, counted_amount, quantity, amount)
           ), changed AS (
               UPDATE product_sales SET quantity = drift.quantity, amount = drift.amount FROM drift
               WHERE product_sales.day = ANY(ARRAY[drift.of]) AND product_sales.product_id = drift.product_id
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
            (counts(&[(1, 5), (2, 3), (3, 1), (5, -2)]), counts(&[(1, 5), (2, 4), (4, 2), (6, 0)]));
        let drifts = compare(day, &counted, &sold);
        let found: Vec<_> =
            drifts.iter().map(|drift| (drift.product_id, drift.counted.0, drift.sold.0)).collect();
        assert_eq!(found, [(2, 3, 4), (3, 1, 0), (4, 0, 2), (5, -2, 0)]);
    }
}
