//! The retention: what nobody may ask for any more is deleted, daily and in small batches.
//!
//! Forgotten are the outcomes of jobs that had no effect, the notes which events were counted, and
//! the answers of keyed charges. A success is kept as long as its effect: it is the audit's record,
//! and its job or key has no second effect ever.
//!
//! **Architecture invariant.** What was forgotten must not happen again. So a day of submission
//! (UTC) is first closed, for good and in the database, and then its rows are deleted: a job of a
//! closed day that comes without an outcome may have had one and is not run
//! (`runtime::record::Past`), and an event of a closed day is not added to the statistics, its
//! orders are counted anew (`update_sales_stats::count`). A `JOB_RETENTION` that is raised later, or
//! differs between processes, changes nothing about that.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use firstcome_shared::job::JobId;
use sqlx::{PgPool, postgres::types::PgInterval};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::update_sales_stats;

/// Rows that one statement deletes.
const BATCH: i64 = 5_000;
/// Pages of a table (8 KiB each) that one statement looks through.
const PAGES: i64 = 1_000;
/// How often it is looked whether a purge is due.
const LOOK: Duration = Duration::from_secs(60);

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Outcomes of jobs that were rejected or failed.
    pub outcomes: u64,
    /// Notes that an event was counted.
    pub notes: u64,
    /// Answers of requests with an idempotency key that are not jobs.
    pub answers: u64,
}

/// Where a purge begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Behind what an earlier purge has finished.
    LastPurge,
    /// At the first row, also for what came late.
    Ever,
}

/// Purges whenever another day has passed its retention, until `stop`. Several processes may: they
/// share the work.
pub async fn run(pool: PgPool, time_zone: String, retention: u32, stop: CancellationToken) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let purging = purge(&pool, &time_zone, retention, Since::LastPurge);
        match stop.run_until_cancelled(purging).await {
            Some(Ok(Some(purged))) => tracing::info!(?purged, "purged"),
            Some(Ok(None)) | None => {}
            Some(Err(error)) => tracing::warn!(%error, "purge interrupted, it will go on"),
        }
    }
}

/// Deletes what is older than `retention` seconds (by whole days); `None` if nothing is due.
///
/// # Errors
/// The database's; the next purge goes on where this one ended.
pub async fn purge(
    pool: &PgPool,
    time_zone: &str,
    retention: u32,
    since: Since,
) -> Result<Option<Purged>, sqlx::Error> {
    let retention =
        PgInterval { months: 0, days: 0, microseconds: i64::from(retention) * 1_000_000 };
    let row = sqlx::query!(
        r#"SELECT GREATEST((now() AT TIME ZONE 'UTC' - $1::interval)::date - 1, closed) AS "last!", closed, purged
           FROM (SELECT max(day) FILTER (WHERE job = 'close-day') AS closed,
                        max(day) FILTER (WHERE job = 'purge') AS purged FROM daily_runs) AS runs"#,
        retention,
    )
    .fetch_one(pool)
    .await?;
    let last = row.last;
    let since = match since {
        Since::LastPurge if row.purged >= Some(last) => return Ok(None),
        Since::LastPurge => row.purged,
        Since::Ever => None,
    };
    if row.closed < Some(last) {
        update_sales_stats::close(pool, time_zone, row.closed.map(after), last).await?;
    }
    let (first, end) = (since.map(after).unwrap_or_default(), after(last));
    let purged = Purged {
        outcomes: delete_outcomes(pool, first, end).await?,
        notes: delete_notes(pool, end).await?,
        answers: delete_answers(pool, end).await?,
    };
    // What is finished; of earlier days nothing needs to be known any more.
    sqlx::query!(
        "INSERT INTO daily_runs (job, day) VALUES ('purge', $1) ON CONFLICT ON CONSTRAINT daily_runs_pkey DO NOTHING",
        last
    )
    .execute(pool)
    .await?;
    sqlx::query!("DELETE FROM daily_runs WHERE day < $1", last).execute(pool).await?;
    // APIs that have told nothing for a day: who tells again begins again.
    sqlx::query!("DELETE FROM line_tellers WHERE told_at < now() - interval '1 day'")
        .execute(pool)
        .await?;
    Ok(Some(purged))
}

/// The first instant of the next day.
fn after(day: NaiveDate) -> DateTime<Utc> {
    day.succ_opt().unwrap_or(day).and_time(NaiveTime::MIN).and_utc()
}

/// In the order of the primary key, which is that of submission. Locked before they are counted out,
/// here and below: a second process goes on behind the first one's batch, and where nothing is left,
/// nothing is left.
async fn delete_outcomes(
    pool: &PgPool,
    first: DateTime<Utc>,
    end: DateTime<Utc>,
) -> Result<u64, sqlx::Error> {
    let (mut from, end) = (JobId::lowest_at(first), JobId::lowest_at(end));
    let mut count = 0;
    loop {
        let deleted = sqlx::query_scalar!(
            "DELETE FROM job_outcomes WHERE job_id = ANY(ARRAY(
                 SELECT job_id FROM job_outcomes
                 WHERE job_id >= $1 AND job_id < $2 AND status <> 'succeeded'
                 ORDER BY job_id LIMIT $3 FOR UPDATE))
             RETURNING job_id",
            from,
            end,
            BATCH,
        )
        .fetch_all(pool)
        .await?;
        let Some(last) = deleted.iter().max() else { return Ok(count) };
        from = *last;
        count += deleted.len() as u64;
    }
}

/// An event has its job's id, so these are in the order of submission too.
async fn delete_notes(pool: &PgPool, end: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let mut count = 0;
    loop {
        let deleted = update_sales_stats::forget(pool, JobId::lowest_at(end), BATCH).await?;
        if deleted == 0 {
            return Ok(count);
        }
        count += deleted;
    }
}

/// No index knows their age, and none is needed: the table is as large as the retention is long,
/// and is read through once, page by page.
async fn delete_answers(pool: &PgPool, end: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let pages = sqlx::query_scalar!(
        r#"SELECT pg_relation_size('idempotent_answers') / current_setting('block_size')::bigint AS "pages!""#
    )
    .fetch_one(pool)
    .await?;
    let (mut page, mut count) = (0, 0);
    while page < pages {
        let deleted = sqlx::query!(
            "DELETE FROM idempotent_answers
             WHERE ctid >= format('(%s,0)', $1::bigint)::tid AND ctid < format('(%s,0)', $1 + $2::bigint)::tid
               AND created_at < $3",
            page,
            PAGES,
            end,
        )
        .execute(pool)
        .await?;
        count += deleted.rows_affected();
        page += PAGES;
    }
    Ok(count)
}
