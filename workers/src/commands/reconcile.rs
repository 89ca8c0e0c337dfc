//! `firstcome-worker reconcile`: what to do about jobs that were lost when PostgreSQL went back to an earlier
//! moment, or the broker lost its data (docs/restore.md).
//!
//! Who polls a lost job, or repeats its key, ends it; this ends those of whom nobody asks. It knows of jobs with
//! an idempotency key only: Redis remembers the keys of jobs that were not settled at once, nobody the others.

use std::collections::HashMap;

use anyhow::Context;
use chrono::{DateTime, Utc};
use firstcome_contract::{
    failure::Failure,
    family::Family,
    ids::UserId,
    job::{JobId, Settled, SettledBatch, held_key, outcome::settled_channel},
    line::{Line, Naming},
    lost::{MARGIN, Progress, has_come_out},
};
use redis::{AsyncTypedCommands, aio::MultiplexedConnection};
use sqlx::PgPool;

use crate::line::end_lost;

/// About how many keys of Redis one `SCAN` looks at.
const SCAN_COUNT: usize = 1_000;
/// The script that frees a key, unless it is another job's by now.
const FREE_KEY: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// How many keys and jobs a run has looked at, by what it found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Keys of jobs that were in their lines.
    pub looked_at: usize,
    /// Of those, the jobs that have an outcome.
    pub settled: usize,
    /// Lost jobs that this run gave an outcome.
    pub ended: usize,
    /// Lost ones that were ended before, whose keys are free now.
    pub freed: usize,
    /// Those that may still be in a line.
    pub waiting: usize,
    /// How many lines there are.
    pub lines: usize,
    /// Lines of which it is not known that they settled anything of the last minute.
    pub behind: Vec<Line>,
}

/// An idempotency key in Redis, and the job that it belongs to.
struct Held {
    name: String,
    entry: String,
    job: JobId,
    user_id: UserId,
}

/// How far the lines are, by the database.
struct Lines {
    now: DateTime<Utc>,
    progress: Vec<Progress>,
}

/// Ends the lost jobs whose keys Redis knows, and frees their keys.
///
/// # Errors
/// With a hint.
pub async fn reconcile(
    pool: &PgPool,
    redis: &redis::Client,
    namespace: &str,
) -> anyhow::Result<Reconciled> {
    const DATABASE: &str =
        "cannot ask the database (is DATABASE_URL right, and was `firstcome-worker migrate` run?)";
    const REDIS: &str = "cannot ask Redis (is REDIS_URL right?)";
    // Before the outcomes: what came out of a line until then has its outcome, if it ever gets one.
    let lines = lines(pool).await.context(DATABASE)?;
    let mut redis = redis.get_multiplexed_async_connection().await.context(REDIS)?;
    let mut found = Reconciled {
        lines: lines.progress.iter().filter(|line| !line.is_drained).count(),
        behind: lines.behind(),
        ..Reconciled::default()
    };
    let mut cursor = 0;
    loop {
        let (next, held) = page(&mut redis, namespace, cursor).await.context(REDIS)?;
        found.looked_at += held.len();
        let (lost, mut free) = sort(pool, &lines, held, &mut found).await.context(DATABASE)?;
        let ids: Vec<(JobId, UserId)> = lost.iter().map(|held| (held.job, held.user_id)).collect();
        let at = end_lost(pool, &ids).await.context(DATABASE)?;
        let (ended, others): (Vec<Held>, Vec<Held>) =
            lost.into_iter().partition(|held| at.contains_key(&held.job));
        found.ended += ended.len();
        found.freed += free.len();
        // It came out at this moment, or so long ago that its outcome may be forgotten.
        found.waiting += others.len();
        announce(&mut redis, namespace, &ended, &at).await.context(REDIS)?;
        free.extend(ended);
        free_keys(&mut redis, &free).await.context(REDIS)?;
        if next == 0 {
            return Ok(found);
        }
        cursor = next;
    }
}

/// Some keys, and where to go on; 0 behind the last ones.
async fn page(
    redis: &mut MultiplexedConnection,
    namespace: &str,
    cursor: u64,
) -> redis::RedisResult<(u64, Vec<Held>)> {
    let mut scan = redis::cmd("SCAN");
    let pattern = format!("{}*", held_key::prefix(namespace));
    scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
    let (next, names): (u64, Vec<String>) = scan.query_async(redis).await?;
    if names.is_empty() {
        return Ok((next, Vec::new()));
    }
    let entries: Vec<Option<String>> = redis::cmd("MGET").arg(&names).query_async(redis).await?;
    let held = names.into_iter().zip(entries).filter_map(|(name, entry)| {
        let entry = entry?;
        let (state, job, _) = held_key::parse(&entry)?;
        // A claim that is pending ends by itself.
        let is_queued = state == held_key::QUEUED && job.kind().is_some();
        let user_id = held_key::user_of(namespace, &name)?;
        is_queued.then_some(Held { name, entry, job, user_id })
    });
    Ok((next, held.collect()))
}

/// Counts what is settled and what waits; the rest is lost, or was ended as lost before.
async fn sort(
    pool: &PgPool,
    lines: &Lines,
    held: Vec<Held>,
    found: &mut Reconciled,
) -> Result<(Vec<Held>, Vec<Held>), sqlx::Error> {
    let ids: Vec<uuid::Uuid> = held.iter().map(|held| held.job.get()).collect();
    let outcomes =
        sqlx::query!("SELECT job_id, code FROM job_outcomes WHERE job_id = ANY($1)", &ids)
            .fetch_all(pool)
            .await?;
    let outcomes: HashMap<JobId, Option<String>> =
        outcomes.into_iter().map(|row| (JobId::from(row.job_id), row.code)).collect();
    let (mut lost, mut ended) = (Vec::new(), Vec::new());
    for held in held {
        match outcomes.get(&held.job).map(Option::as_deref) {
            Some(Some(code)) if code == Failure::Lost.code() => ended.push(held),
            Some(_) => found.settled += 1,
            None if lines.have_passed(held.job) => lost.push(held),
            None => found.waiting += 1,
        }
    }
    Ok((lost, ended))
}

/// Tells the APIs what was ended: one may remember another outcome.
async fn announce(
    redis: &mut MultiplexedConnection,
    namespace: &str,
    ended: &[Held],
    at: &HashMap<JobId, DateTime<Utc>>,
) -> redis::RedisResult<()> {
    let settled = ended
        .iter()
        .filter_map(|held| at.get(&held.job).map(|at| Settled::lost(held.job, held.user_id, *at)));
    let (settled, sold_out, restocked) = (settled.collect(), Vec::new(), Vec::new());
    let batch = SettledBatch { settled, sold_out, restocked };
    if let Ok(message) = batch.encode()
        && !batch.settled.is_empty()
    {
        redis.publish(settled_channel(namespace), message).await?;
    }
    Ok(())
}

async fn free_keys(redis: &mut MultiplexedConnection, held: &[Held]) -> redis::RedisResult<()> {
    let mut all = redis::pipe();
    for Held { name, entry, .. } in held {
        all.cmd("EVAL").arg(FREE_KEY).arg(1).arg(name).arg(entry).ignore();
    }
    if held.is_empty() { Ok(()) } else { all.query_async(redis).await }
}

impl Lines {
    fn have_passed(&self, job: JobId) -> bool {
        has_come_out(job, self.now, self.progress.iter().copied())
    }

    fn behind(&self) -> Vec<Line> {
        let is_behind = |line: &&Progress| line.passed < Some(self.now - MARGIN);
        let lines = self.progress.iter().filter(|line| !line.is_drained);
        lines.filter(is_behind).map(|line| line.line).collect()
    }
}

async fn lines(pool: &PgPool) -> Result<Lines, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT clock_timestamp() AS "now!", l.family, l.generation, l.line, l.naming, l.partitions, l.drained_at IS NOT NULL AS "is_drained!",
                  GREATEST(p.until, r.cleared_until) AS passed
           FROM partition_leases AS l
           JOIN routing ON routing.family = l.family AND l.generation <= routing.generation
           LEFT JOIN line_reports AS r ON r.family = l.family AND r.generation = l.generation AND r.line = l.line
           LEFT JOIN line_progress AS p ON p.family = l.family AND p.generation = l.generation AND p.line = l.line
           ORDER BY l.family, l.generation, l.line"#
    )
    .fetch_all(pool)
    .await?;
    let now = rows.first().map_or_else(Utc::now, |row| row.now);
    let progress = rows.into_iter().filter_map(|row| {
        let (family, naming) = (Family::from_name(&row.family)?, Naming::from_name(&row.naming)?);
        Some(Progress {
            line: Line { family, generation: row.generation, name: row.line.parse().ok()?, naming },
            partitions: u16::try_from(row.partitions).unwrap_or(u16::MAX),
            is_drained: row.is_drained,
            passed: row.passed,
        })
    });
    Ok(Lines { now, progress: progress.collect() })
}

/// Prints what was found, for people.
#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
pub fn report(found: &Reconciled, namespace: &str) {
    let Reconciled { looked_at, settled, ended, freed, waiting, lines, behind } = found;
    if *lines == 0 {
        println!("there are no lines: has a worker ever run on this database?");
    } else if !behind.is_empty() {
        let names: Vec<String> = behind.iter().map(|line| line.queue(namespace)).collect();
        let (behind, names) = (behind.len(), names.join(", "));
        println!(
            "{behind} of {lines} lines have settled nothing of the last minute, so what may stand in them is not known \
             to be lost; do their workers run? {names}"
        );
    }
    println!("looked at {looked_at} keyed jobs of the last 24 hours: {settled} have an outcome");
    println!("ended as job-lost: {ended}; ended before, keys freed now: {freed}");
    println!("may still be in a line: {waiting}");
    println!("jobs without a key are ended when they are polled");
}
