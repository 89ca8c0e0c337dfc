//! The retention: what nobody may ask for any more is deleted, daily and in small batches.
//!
//! Forgotten are the outcomes of jobs that had no effect, the notes which events were counted, and
//! the answers of keyed charges. A success is kept as long as its effect: it is the audit's record,
//! and its job or key has no second effect ever.
//!
//! **Architecture invariant.** What was forgotten must not happen again. So a day of submission
//! (UTC) is first closed, for good and in the database, and then its rows are deleted: a job of a
//! closed day that comes without an outcome may have had one and is not run
//! (`line::duplicates::Past`), and an event of a closed day is not added to the statistics, its
//! orders are counted anew (`update_sales_stats::count`). A `JOB_RETENTION` that is raised later, or
//! differs between processes, changes nothing about that.

use std::{ops::Range, time::Duration};

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use firstcome_contract::job::JobId;
use firstcome_process::database::Pool;
use sqlx::{PgConnection, postgres::types::PgInterval};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{database::answered, events::update_sales_stats};

/// The most rows that one statement looks through, or deletes.
const MAX_ROWS: i64 = 5_000;
/// The most pages of a table (8 KiB each) that one statement looks through.
const MAX_PAGES: i64 = 1_000;
/// Time between two looks whether a purge is due.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// How many rows a purge has deleted.
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
pub async fn run(pool: Pool, time_zone: String, retention: u32, stop: CancellationToken) {
    let mut ticks = interval(CHECK_INTERVAL);
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
    pool: &Pool,
    time_zone: &str,
    retention: u32,
    since: Since,
) -> Result<Option<Purged>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let purged = purge_on(&mut connection, time_zone, retention, since).await;
    connection.judge(Ok(purged))
}

async fn purge_on(
    on: &mut PgConnection,
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
    );
    let row = answered(row.fetch_one(&mut *on)).await?;
    let last = row.last;
    let since = match since {
        Since::LastPurge if row.purged >= Some(last) => return Ok(None),
        Since::LastPurge => row.purged,
        Since::Ever => None,
    };
    let end = after(last);
    if row.closed < Some(last) {
        let submitted = row.closed.map(after).unwrap_or_default()..end;
        update_sales_stats::close(on, time_zone, submitted, last).await?;
    }
    let first = since.map(after).unwrap_or_default();
    let jobs = JobId::lowest_at(first)..JobId::lowest_at(end);
    let purged = Purged {
        outcomes: delete_outcomes(on, jobs.clone()).await?,
        // An event that is counted has its job's id.
        notes: update_sales_stats::forget(on, jobs).await?,
        answers: delete_answers(on, end).await?,
    };
    // What is finished; of earlier days nothing needs to be known any more.
    let finished = sqlx::query!(
        "INSERT INTO daily_runs (job, day) VALUES ('purge', $1) ON CONFLICT ON CONSTRAINT daily_runs_pkey DO NOTHING",
        last
    );
    answered(finished.execute(&mut *on)).await?;
    let forgotten = sqlx::query!("DELETE FROM daily_runs WHERE day < $1", last);
    answered(forgotten.execute(&mut *on)).await?;
    // APIs that have told nothing for a day: who tells again begins again.
    let silent = sqlx::query!("DELETE FROM line_tellers WHERE told_at < now() - interval '1 day'");
    answered(silent.execute(on)).await?;
    Ok(Some(purged))
}

/// The first instant of the next day.
fn after(day: NaiveDate) -> DateTime<Utc> {
    day.succ_opt().unwrap_or(day).and_time(NaiveTime::MIN).and_utc()
}

/// In the order of the primary key, which is that of submission, a piece at a time: of many jobs nearly
/// all may have succeeded. Locked before they are deleted, in that order, here and below: a second process
/// goes on behind the first one's piece.
async fn delete_outcomes(on: &mut PgConnection, jobs: Range<Uuid>) -> Result<u64, sqlx::Error> {
    let (mut from, mut count) = (jobs.start, 0);
    while from < jobs.end {
        // Without an upper bound there is but one way to find it.
        let next = sqlx::query_scalar!(
            "SELECT job_id FROM job_outcomes WHERE job_id >= $1 ORDER BY job_id OFFSET $2 LIMIT 1",
            from,
            MAX_ROWS,
        );
        let next = answered(next.fetch_optional(&mut *on)).await?;
        let to = next.map_or(jobs.end, |next| next.min(jobs.end));
        let deleted = sqlx::query!(
            "DELETE FROM job_outcomes WHERE job_id = ANY(ARRAY(
                 SELECT job_id FROM job_outcomes
                 WHERE job_id >= $1 AND job_id < $2 AND status <> 'succeeded'
                 ORDER BY job_id FOR UPDATE))",
            from,
            to,
        );
        count += answered(deleted.execute(&mut *on)).await?.rows_affected();
        // Of those that are gone.
        let mentions = sqlx::query!(
            "DELETE FROM job_mentions WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM job_mentions AS mention WHERE job_id >= $1 AND job_id < $2
                 AND (SELECT status FROM job_outcomes WHERE job_id = mention.job_id LIMIT 1) IS NULL
                 ORDER BY job_id, what, id))",
            from,
            to,
        );
        answered(mentions.execute(&mut *on)).await?;
        from = to;
    }
    Ok(count)
}

/// No index knows their age, and none is needed: the table is as large as the retention is long,
/// and is read through once, page by page.
async fn delete_answers(on: &mut PgConnection, end: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let pages = sqlx::query_scalar!(
        r#"SELECT pg_relation_size('idempotent_answers') / current_setting('block_size')::bigint AS "pages!""#
    );
    let pages = answered(pages.fetch_one(&mut *on)).await?;
    let (mut page, mut count) = (0, 0);
    while page < pages {
        let deleted = sqlx::query!(
            "DELETE FROM idempotent_answers
             WHERE ctid >= format('(%s,0)', $1::bigint)::tid AND ctid < format('(%s,0)', $1 + $2::bigint)::tid
               AND created_at < $3",
            page,
            MAX_PAGES,
            end,
        );
        count += answered(deleted.execute(&mut *on)).await?.rows_affected();
        page += MAX_PAGES;
    }
    Ok(count)
}
