//! The lease of a line: what fences a worker off that lost it without noticing.

use firstcome_contract::line::Line;
use firstcome_process::database::Pool;
use uuid::Uuid;

/// A line that is ours for as long as nobody else has taken it: then its epoch is a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lease {
    pub(crate) line: Line,
    pub(crate) owner: Uuid,
    pub(crate) epoch: i64,
}

/// Its last message was consumed: everything before it is settled.
pub(crate) async fn drained(pool: &Pool, line: Line) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE partition_leases
         SET drained_at = clock_timestamp(), ended_at = COALESCE(ended_at, clock_timestamp()),
             closed_at = COALESCE(closed_at, clock_timestamp())
         WHERE family = $1 AND generation = $2 AND line = $3
           AND generation < (SELECT generation FROM routing WHERE family = $1) AND drained_at IS NULL",
        line.family.as_str(),
        line.generation,
        line.name.to_string(),
    )
    .execute(pool)
    .await?;
    Ok(())
}
