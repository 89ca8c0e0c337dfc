//! Where and on whose behalf jobs are settled.

use firstcome_contract::family::Family;
use firstcome_process::database::Pool;
use sqlx::PgConnection;

use super::{
    attempt::AttemptError,
    lease::Lease,
    record::{self, Past},
};
use crate::metrics::Metrics;

/// Where and on whose behalf jobs are settled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Desk<'a> {
    pub(crate) pool: &'a Pool,
    /// Whose lines these are, or whose worker it is.
    pub(crate) family: Family,
    pub(crate) queue: &'a str,
    /// The line that they stood in; `None` for what the broker gave up on, which is nobody's.
    pub(crate) lease: Option<&'a Lease>,
    pub(crate) metrics: &'a Metrics,
}

/// See [`record::begin`].
pub(crate) async fn begin(
    transaction: &mut PgConnection,
    desk: Desk<'_>,
    ids: &[uuid::Uuid],
) -> Result<Past, AttemptError> {
    record::begin(transaction, desk.lease, ids).await?.ok_or(AttemptError::Fenced)
}
