//! Which code decides which kind of job. The match is exhaustive: a new kind does not compile
//! until it has a handler, and a role that runs it.

use firstcome_contract::job::{Envelope, JobKind};
use sqlx::PgConnection;

use super::{issue_coupon, outcome::Outcome, place_order};

/// Whether such a job's success appends to the outbox.
#[must_use]
pub const fn has_events(kind: JobKind) -> bool {
    match kind {
        JobKind::IssueCoupon => false,
        JobKind::PlaceOrder => true,
    }
}

/// Applies jobs of one kind, in order, inside the caller's transaction: one outcome per job, in
/// the same order.
///
/// # Errors
/// Infrastructure only (the database's error); a business "no" is an outcome.
pub async fn apply(
    kind: JobKind,
    transaction: &mut PgConnection,
    jobs: &[&Envelope],
) -> Result<Vec<Outcome>, sqlx::Error> {
    match kind {
        JobKind::IssueCoupon => issue_coupon::apply(transaction, jobs).await,
        JobKind::PlaceOrder => place_order::apply(transaction, jobs).await,
    }
}
