//! The fence: a batch begins by making sure that its line is still ours. The same statement tells which of its
//! jobs are settled already: see [`super::duplicates`].

use std::collections::HashMap;

use firstcome_contract::job::JobId;
use sqlx::PgConnection;

use super::{attempt::AttemptError, duplicates::Past, lease::Lease};

/// How long what shares a transaction waits for a lock that somebody else has.
const SHARED_LOCK_TIMEOUT: &str = "250ms";

/// Begins a batch: makes sure that its lines are still ours, and stay so until the transaction ends,
/// and tells what is known of these jobs: where an outcome is gone, its day is closed. Without a lease there is
/// nothing to be sure of. What [shares](super::shared) its transaction waits for locks no longer than a moment.
///
/// One statement tells, and there is no gap in it: a new owner gets the line only after the last batch
/// of the old one ended (the lock), and so begins with a snapshot that sees what it committed. A
/// failed job that an operator gave another attempt counts as open: its outcome makes room for the
/// next one.
pub(crate) async fn begin(
    transaction: &mut PgConnection,
    leases: impl Iterator<Item = &Lease>,
    ids: &[uuid::Uuid],
    is_shared: bool,
) -> Result<Past, AttemptError> {
    let (mut families, mut generations, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    let (mut owners, mut epochs) = (Vec::new(), Vec::new());
    for Lease { line, owner, epoch } in leases {
        families.push(line.family.as_str());
        generations.push(line.generation);
        lines.push(line.name.to_string());
        owners.push(*owner);
        epochs.push(*epoch);
    }
    let row = sqlx::query!(
        r#"WITH leases AS MATERIALIZED (
               SELECT FROM UNNEST($1::text[], $2::int[], $3::text[], $4::uuid[], $5::bigint[])
                   AS ours (family_, generation_, line_, owner_, epoch_)
               CROSS JOIN LATERAL (
                   SELECT FROM partition_leases
                   WHERE family = family_ AND generation = generation_ AND line = line_ AND owner = owner_
                     AND epoch = epoch_
                   FOR SHARE
               ) AS lease
           )
           SELECT (SELECT count(*) FROM leases) = cardinality($1) AS "ours!", known.ids AS "ids!",
                  known.redriven AS "redriven!", (SELECT max(day) FROM daily_runs WHERE job = 'close-day') AS closed,
                  CASE WHEN $7::text IS NOT NULL THEN set_config('lock_timeout', $7::text, true) END AS lock_timeout
           FROM (SELECT COALESCE(array_agg(job_id), '{}') AS ids, COALESCE(array_agg(redriven), '{}') AS redriven
                 FROM job_outcomes WHERE job_id = ANY($6)) AS known"#,
        &families as &[&str],
        &generations,
        &lines,
        &owners,
        &epochs,
        ids,
        is_shared.then_some(SHARED_LOCK_TIMEOUT),
    )
    .fetch_one(&mut *transaction)
    .await?;
    if !row.ours {
        return Err(AttemptError::Fenced);
    }
    let known: HashMap<JobId, bool> =
        row.ids.into_iter().map(JobId::from).zip(row.redriven).collect();
    // Only those that this batch will decide: another may be redriven by now.
    let again: Vec<uuid::Uuid> =
        known.iter().filter(|(_, redriven)| **redriven).map(|(id, _)| id.get()).collect();
    if !again.is_empty() {
        sqlx::query!("DELETE FROM job_outcomes WHERE job_id = ANY($1) AND redriven", &again)
            .execute(transaction)
            .await?;
    }
    Ok(Past { known, closed: row.closed })
}
