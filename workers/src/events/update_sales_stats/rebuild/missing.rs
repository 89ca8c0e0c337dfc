//! What was not counted: orders and cancellations whose events are on their way, or lost.

use std::{collections::HashSet, ops::Range};

use sqlx::PgConnection;
use uuid::Uuid;

use super::MAX_ORDERS;
use crate::{
    database::answered,
    events::update_sales_stats::{CONSUMER, count_once::count_once, sale::Sale},
};

/// Counts the orders and the cancellations of these jobs whose events were not counted, be they on their way or lost.
pub(super) async fn count_missing(
    on: &mut PgConnection,
    time_zone: &str,
    jobs: Range<Uuid>,
) -> Result<(), sqlx::Error> {
    for told in [Told::Completed, Told::Cancelled] {
        let (mut from, mut events) = (jobs.start, 0);
        while from < jobs.end {
            let next = told.behind(on, from).await?;
            let to = next.map_or(jobs.end, |next| next.min(jobs.end));
            let missing = told.missing(on, from..to).await?;
            if !missing.is_empty() {
                events += missing.iter().map(|sale| sale.event).collect::<HashSet<_>>().len();
                count_once(on, &missing, time_zone).await?;
            }
            from = to;
        }
        if events > 0 {
            tracing::info!(events, ?told, "orders were counted before their events came");
        }
    }
    Ok(())
}

/// What an event of an order tells.
#[derive(Debug, Clone, Copy)]
enum Told {
    Completed,
    Cancelled,
}

impl Told {
    /// The job behind as many as one statement looks through, if there are more.
    async fn behind(self, on: &mut PgConnection, from: Uuid) -> Result<Option<Uuid>, sqlx::Error> {
        // Without an upper bound there is but one way to find it.
        match self {
            Self::Completed => {
                let next = sqlx::query_scalar!(
                    "SELECT job_id FROM orders WHERE job_id >= $1 ORDER BY job_id OFFSET $2 LIMIT 1",
                    from,
                    MAX_ORDERS,
                );
                answered(next.fetch_optional(on)).await
            }
            Self::Cancelled => {
                let next = sqlx::query_scalar!(
                    "SELECT job_id FROM cancellations WHERE job_id >= $1 ORDER BY job_id OFFSET $2 LIMIT 1",
                    from,
                    MAX_ORDERS,
                );
                answered(next.fetch_optional(on)).await
            }
        }
    }

    /// What those of these jobs count that were not counted.
    async fn missing(
        self,
        on: &mut PgConnection,
        jobs: Range<Uuid>,
    ) -> Result<Vec<Sale>, sqlx::Error> {
        match self {
            Self::Completed => {
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
                           WHERE order_id BETWEEN completed.id AND completed.id ORDER BY order_id, product_id
                       ) AS items
                       WHERE note.event_id IS NULL AND (completed.created_at AT TIME ZONE 'UTC')::date
                             > (SELECT COALESCE(max(day), '-infinity') FROM daily_runs WHERE job = 'close-day')"#,
                    jobs.start,
                    jobs.end,
                    CONSUMER,
                );
                answered(missing.fetch_all(on)).await
            }
            Self::Cancelled => {
                let missing = sqlx::query_as!(
                    Sale,
                    r#"SELECT cancelled.job_id AS "event!", completed.completed_at AS "at!", items.product_id AS "product!",
                              -items.quantity AS "quantity!", -items.amount AS "amount!"
                       FROM (SELECT order_id, job_id, submitted_at FROM cancellations
                             WHERE job_id >= $1 AND job_id < $2 OFFSET 0) AS cancelled
                       LEFT JOIN LATERAL (
                           SELECT event_id FROM event_inbox WHERE consumer = $3 AND event_id = cancelled.job_id OFFSET 0
                       ) AS note ON true
                       CROSS JOIN LATERAL (
                           SELECT completed_at FROM orders WHERE id BETWEEN cancelled.order_id AND cancelled.order_id
                           ORDER BY id LIMIT 1
                       ) AS completed
                       CROSS JOIN LATERAL (
                           SELECT product_id, quantity, unit_price * quantity AS amount FROM order_items
                           WHERE order_id BETWEEN cancelled.order_id AND cancelled.order_id ORDER BY order_id, product_id
                       ) AS items
                       WHERE note.event_id IS NULL AND (cancelled.submitted_at AT TIME ZONE 'UTC')::date
                             > (SELECT COALESCE(max(day), '-infinity') FROM daily_runs WHERE job = 'close-day')"#,
                    jobs.start,
                    jobs.end,
                    CONSUMER,
                );
                answered(missing.fetch_all(on)).await
            }
        }
    }
}
