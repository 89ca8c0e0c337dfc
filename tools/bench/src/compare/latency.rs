//! How long it takes from a submission to its outcome, at loads that the system can bear.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use firstcome_contract::job::JobId;
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    arena::Scene,
    contender::{Firstcome, outcomes},
    contest::Contest,
    sales::NAME,
    storm::{Drizzle, Fallen},
};
use crate::{load::Latencies, side::SideName};

/// Shares of the maximum, in percent.
const LOADS: [u32; 3] = [25, 50, 75];
/// Enough that none is waited for.
const CONNECTIONS: usize = 256;

impl Contest<'_> {
    /// `most` is what the system settled in a second.
    pub(super) async fn latencies(
        &mut self,
        system: &Firstcome,
        scene: &Scene,
        most: f64,
        mut accepted: i64,
    ) -> anyhow::Result<()> {
        for load in LOADS {
            let (requests, _) = self.hot(SideName::Atomic, scene).await?;
            let drizzle = Drizzle {
                address: system.address,
                connections: CONNECTIONS,
                // A queue that grows takes its time to show.
                window: 2 * self.plan.window,
                requests,
                per_second: most * f64::from(load) / 100.0,
            };
            scene.settle_down().await;
            let Fallen { jobs, told } = drizzle.fall().await?;
            accepted += i64::try_from(jobs.len())?;
            outcomes(&scene.pool, accepted).await?;
            let latencies = until_settled(&scene.pool, &jobs).await?;
            let key = |metric: &str| format!("latency.{NAME}.{load}.{metric}");
            self.ledger.add(key("offered_per_second"), drizzle.per_second);
            for (metric, percent) in [("p50_ms", 50.0), ("p99_ms", 99.0)] {
                let millis = latencies.percentile(percent).as_secs_f64() * 1e3;
                self.ledger.add(key(metric), millis);
            }
            let told = told.percentile(99.0).as_secs_f64() * 1e3;
            self.ledger.add(key("told_p99_ms"), told);
            let p99 = latencies.percentile(99.0);
            self.say(format_args!("  submit → settled at {load}% of the maximum: p99 {p99:.1?}"));
        }
        Ok(())
    }
}

/// From when the request was due to when its outcome was stored: by the database's clock (this
/// machine's), at the end of the transaction.
async fn until_settled(pool: &PgPool, jobs: &[(Uuid, DateTime<Utc>)]) -> anyhow::Result<Latencies> {
    let since = jobs.iter().map(|(_, due)| *due).min().unwrap_or_default();
    let outcomes: Vec<(Uuid, DateTime<Utc>)> =
        sqlx::query_as("SELECT job_id, settled_at FROM job_outcomes WHERE job_id >= $1")
            .bind(JobId::lowest_at(since))
            .fetch_all(pool)
            .await?;
    let settled_at: HashMap<Uuid, DateTime<Utc>> = outcomes.into_iter().collect();
    let mut latencies = Latencies::default();
    for (job, due) in jobs {
        let settled_at = settled_at.get(job);
        let settled_at = settled_at.ok_or_else(|| anyhow::anyhow!("job {job} has no outcome"))?;
        latencies.record((*settled_at - *due).to_std().unwrap_or_default());
    }
    Ok(latencies)
}
