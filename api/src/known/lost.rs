//! Jobs that were lost end when somebody asks for them: see [`firstcome_contract::lost`].
//!
//! Their outcome is the only one that is not a worker's, who has nothing in hand to decide. It has no effect,
//! and is stored like any other, so that it stands: a job that comes out of a line after all finds it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use chrono::NaiveDate;
use firstcome_contract::{
    ids::UserId,
    job::{JobId, JobKind, Settled, SettledBatch, outcome::settled_channel},
};
use firstcome_process::database::Pool;
use redis::AsyncTypedCommands;
use sqlx::PgConnection;

use super::{
    batched::{Batched, Unavailable},
    outcomes::stored,
};
use crate::{cache::Cache, lines::Lines, metrics::Metrics};

/// Finds jobs that were lost, and gives them the outcome `job-lost`.
#[derive(Debug)]
pub struct Lost {
    lines: Arc<Lines>,
    ended: Batched<(JobId, UserId), Arc<Settled>>,
}

/// Tells the other APIs and the metrics of jobs that were lost.
#[derive(Debug, Clone)]
struct Announcer {
    cache: Cache,
    channel: Arc<str>,
    metrics: Metrics,
}

impl Lost {
    /// Starts the task behind it, which ends when the handle is dropped.
    #[must_use]
    pub fn start(
        pool: &Pool,
        cache: Cache,
        namespace: &str,
        lines: Arc<Lines>,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let channel = settled_channel(namespace).into();
        let announcer = Announcer { cache, channel, metrics: metrics.clone() };
        let ended = Batched::start(pool, move |connection, jobs| {
            Box::pin(end(connection, jobs, announcer.clone()))
        });
        Arc::new(Self { lines, ended })
    }

    /// Whether the job has its outcome by now, or is lost. Asks nobody.
    #[must_use]
    pub fn has_come_out(&self, id: JobId) -> bool {
        self.lines.has_come_out(id)
    }

    /// The outcome of a job of which none is known: it gets one if it is lost. `None` while it may still be in a
    /// line.
    ///
    /// # Errors
    /// [`Unavailable`] if PostgreSQL could not say.
    pub async fn outcome(
        &self,
        id: JobId,
        user: UserId,
    ) -> Result<Option<Arc<Settled>>, Unavailable> {
        if self.has_come_out(id) { self.ended.get((id, user)).await } else { Ok(None) }
    }
}

/// Ends those of these jobs that have no outcome, and none that may be forgotten; the outcomes of all, which
/// others may have ended at this moment. Without their keys, which are free.
async fn end(
    connection: &mut PgConnection,
    mut jobs: Vec<(JobId, UserId)>,
    announcer: Announcer,
) -> Result<HashMap<(JobId, UserId), Arc<Settled>>, sqlx::Error> {
    // In one order: another API may end the same ones.
    jobs.sort_unstable();
    let ids: Vec<uuid::Uuid> = jobs.iter().map(|(job, _)| job.get()).collect();
    let users: Vec<i64> = jobs.iter().map(|(_, user)| user.get()).collect();
    let kinds: Vec<&str> =
        jobs.iter().map(|(job, _)| job.kind().map_or("", JobKind::as_str)).collect();
    let days = jobs.iter().map(|(job, _)| job.submitted_at().date_naive());
    let days: Vec<NaiveDate> = days.collect();
    let ended = sqlx::query_scalar!(
        "INSERT INTO job_outcomes (job_id, user_id, kind, status, code)
         SELECT id, asker, what, 'failed', 'job-lost'
         FROM UNNEST($1::uuid[], $2::bigint[], $3::text[], $4::date[]) AS lost (id, asker, what, submitted)
         WHERE submitted > COALESCE((SELECT max(day) FROM daily_runs WHERE job = 'close-day'), '-infinity')
         ORDER BY id
         ON CONFLICT ON CONSTRAINT job_outcomes_pkey DO NOTHING
         RETURNING job_id",
        &ids,
        &users,
        &kinds as &[&str],
        &days,
    )
    .fetch_all(&mut *connection)
    .await?;
    let ended: HashSet<JobId> = ended.into_iter().map(JobId::from).collect();
    let outcomes = stored(connection, jobs.iter().map(|(job, _)| *job).collect()).await?;
    if !ended.is_empty() {
        let of_ours = outcomes.values().filter(|outcome| ended.contains(&outcome.job_id));
        let settled = of_ours.map(|outcome| Settled::clone(outcome)).collect();
        tokio::spawn(announcer.announce(settled));
    }
    let of = |asked: (JobId, UserId)| Some((asked, Arc::clone(outcomes.get(&asked.0)?)));
    Ok(jobs.into_iter().filter_map(of).collect())
}

impl Announcer {
    /// Other APIs may remember another outcome.
    async fn announce(self, settled: Vec<Settled>) {
        settled
            .iter()
            .filter_map(|lost| lost.job_id.kind())
            .for_each(|kind| self.metrics.lost(kind));
        // One line, however many: their outcomes tell which.
        if let Some(first) = settled.first() {
            let (count, id) = (settled.len(), first.job_id);
            tracing::error!(count, job_id = %id, "lost jobs, without an outcome and in no line: they end");
        }
        let (sold_out, restocked) = (Vec::new(), Vec::new());
        if let Ok(message) = (SettledBatch { settled, sold_out, restocked }).encode() {
            let publishing = async |mut redis| {
                AsyncTypedCommands::publish(&mut redis, &*self.channel, message).await
            };
            self.cache.ask(publishing).await;
        }
    }
}
