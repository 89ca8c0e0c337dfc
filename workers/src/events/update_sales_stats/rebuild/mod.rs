//! The recount: what the statistics should be, from the orders and their cancellations.
//!
//! Counting goes on meanwhile and waits for nothing: what is compared is one snapshot, read in pieces, and
//! what differs is repaired where it is still as it was then. An instant belongs to the day that a clock of
//! the business shows, also where it shows an hour twice.
//!
//! An order and its cancellation are two events, which are counted by themselves, in whatever order they come:
//! each is counted if there is a note of it, or if the day of its job is closed (see `purge`).

mod drift;
mod missing;

pub use drift::Drift;
pub(super) use drift::recount;

use std::ops::Range;

use chrono::{DateTime, NaiveDate, Utc};
use firstcome_contract::job::JobId;
use firstcome_process::database::Pool;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::CONSUMER;
use crate::database::answered;
use missing::count_missing;

/// The most orders, or cancellations, that one statement looks through, so that it ends in time.
const MAX_ORDERS: i64 = 1_000;
/// The most notes that one statement deletes, so that it ends in time.
const MAX_NOTES: i64 = 5_000;

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
        let since = drift::instants(on, time_zone, *first).await?.start;
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
