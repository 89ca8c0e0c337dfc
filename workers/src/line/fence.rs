//! The fence: a batch begins by making sure that its line is still ours. The same statement tells which of its
//! jobs are settled already: see [`super::duplicates`].

use std::collections::HashMap;

use firstcome_contract::job::JobId;
use sqlx::PgConnection;

use super::{duplicates::Past, lease::Lease};

/// Begins a batch: makes sure that the line is still ours, and stays so until the transaction ends,
/// and tells what is known of these jobs: where an outcome is gone, its day is closed. `None` if
/// the line is another's; without a lease there is nothing to be sure of.
///
/// One statement tells, and there is no gap in it: a new owner gets the line only after the last batch
/// of the old one ended (the lock), and so begins with a snapshot that sees what it committed. A
/// failed job that an operator gave another attempt counts as open: its outcome makes room for the
/// next one.
pub(crate) async fn begin(
    transaction: &mut PgConnection,
    lease: Option<&Lease>,
    ids: &[uuid::Uuid],
) -> Result<Option<Past>, sqlx::Error> {
    let row = sqlx::query!(
        r#"WITH lease AS MATERIALIZED (
               SELECT FROM partition_leases
               WHERE family = $1 AND generation = $2 AND line = $3 AND owner = $4 AND epoch = $5
               FOR SHARE
           )
           SELECT EXISTS (SELECT FROM lease) AS "ours!", known.ids AS "ids!", known.redriven AS "redriven!",
                  (SELECT max(day) FROM daily_runs WHERE job = 'close-day') AS closed
           FROM (SELECT COALESCE(array_agg(job_id), '{}') AS ids, COALESCE(array_agg(redriven), '{}') AS redriven
                 FROM job_outcomes WHERE job_id = ANY($6)) AS known"#,
        lease.map(|lease| lease.line.family.as_str()),
        lease.map(|lease| lease.line.generation),
        lease.map(|lease| lease.line.name.to_string()),
        lease.map(|lease| lease.owner),
        lease.map(|lease| lease.epoch),
        ids,
    )
    .fetch_one(&mut *transaction)
    .await?;
    let ours = row.ours || lease.is_none();
    let known: HashMap<JobId, bool> =
        row.ids.into_iter().map(JobId::from).zip(row.redriven).collect();
    // Only those that this batch will decide: another may be redriven by now.
    let again: Vec<uuid::Uuid> =
        known.iter().filter(|(_, redriven)| **redriven).map(|(id, _)| id.get()).collect();
    if ours && !again.is_empty() {
        sqlx::query!("DELETE FROM job_outcomes WHERE job_id = ANY($1) AND redriven", &again)
            .execute(transaction)
            .await?;
    }
    Ok(ours.then_some(Past { known, closed: row.closed }))
}
