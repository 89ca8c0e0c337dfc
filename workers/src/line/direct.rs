//! Settling without a broker, for measuring what PostgreSQL alone can do.

use anyhow::ensure;
use firstcome_contract::job::Envelope;
use firstcome_process::database::Pool;
use sqlx::PgPool;

use super::{
    batch::{Job, Origin},
    parts::Tuning,
    queue_context::QueueContext,
    settle::settle,
};
use crate::metrics::Metrics;

/// Settles a batch of jobs, of whatever kinds, that stand in no line, in one transaction, exactly as a line's consumer
/// does, and returns after the commit.
///
/// # Errors
/// The database's; and if any of these jobs was settled before.
pub async fn settle_directly(pool: &PgPool, envelopes: Vec<Envelope>) -> anyhow::Result<()> {
    let job = |(record, envelope)| {
        let origin = Origin { message_id: "direct".to_owned(), record, died_in: None, attempts: 0 };
        Job { envelope, origin, payload: Vec::new() }
    };
    let jobs: Vec<Job> = (0..).zip(envelopes).map(job).collect();
    let (pool, metrics) = (&Pool::from(pool.clone()), &Metrics::default());
    let Some(first) = jobs.first() else { return Ok(()) };
    let family = first.kind().family();
    let context = QueueContext { pool, family, queue: "direct", lease: None, metrics };
    let settled = settle(context, &jobs, &mut Tuning::default(), &|| false).await?;
    ensure!(settled.len() == jobs.len(), "{} of {} jobs settled", settled.len(), jobs.len());
    Ok(())
}
