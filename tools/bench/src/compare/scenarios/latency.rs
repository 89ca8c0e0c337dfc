//! How long it takes from a submission to its outcome, at loads that the system can bear.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use firstcome_contract::job::JobId;
use firstcome_rig::latencies::Latencies;
use sqlx::PgPool;
use uuid::Uuid;

use crate::compare::{
    databases::Database,
    load::{OpenLoop, Submitted},
    plan::MOST_CONNECTIONS,
    run::{FIRSTCOME, Run},
    sale::Sale,
    servers::Firstcome,
    throughput::outcomes,
};

/// Shares of the maximum, in percent.
const LOADS: [u32; 3] = [25, 50, 75];

/// `most` is what the system settled in a second; so many jobs were accepted before.
pub(super) async fn latencies(
    run: &mut Run<'_>,
    system: &Firstcome,
    database: &Database,
    most: f64,
    mut accepted: i64,
) -> anyhow::Result<()> {
    for load in LOADS {
        let (requests, _) = run.hot(Sale::Coupons, database).await?;
        let open_loop = OpenLoop {
            address: system.address,
            // Enough that none is waited for.
            connections: MOST_CONNECTIONS,
            // A queue that grows takes its time to show.
            window: 2 * run.plan.window,
            requests,
            per_second: most * f64::from(load) / 100.0,
        };
        database.settle_down().await;
        let Submitted { jobs, polled } = open_loop.run().await?;
        accepted += i64::try_from(jobs.len())?;
        outcomes(&database.pool, accepted).await?;
        let latencies = until_settled(&database.pool, &jobs).await?;
        let key = |metric: &str| format!("latency.{FIRSTCOME}.{load}.{metric}");
        run.measurements.add(key("offered_per_second"), open_loop.per_second);
        for (metric, percent) in [("p50_ms", 50.0), ("p99_ms", 99.0)] {
            let millis = latencies.percentile(percent).as_secs_f64() * 1e3;
            run.measurements.add(key(metric), millis);
        }
        let polled = polled.percentile(99.0).as_secs_f64() * 1e3;
        run.measurements.add(key("told_p99_ms"), polled);
        let p99 = latencies.percentile(99.0);
        run.say(format_args!("  submit → settled at {load}% of the maximum: p99 {p99:.1?}"));
    }
    Ok(())
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
