//! What it takes to settle the jobs of one queue.

use firstcome_contract::family::Family;
use firstcome_process::database::Pool;

use super::lease::Lease;
use crate::metrics::Metrics;

/// What it takes to settle jobs that came out of one queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueContext<'a> {
    pub(crate) pool: &'a Pool,
    /// The family of the lines, or of the worker that consumes what the broker gave up on.
    pub(crate) family: Family,
    /// The queue's name, for the log and for dead letters.
    pub(crate) queue: &'a str,
    /// The lease of the line; `None` for what the broker gave up on, which is nobody's.
    pub(crate) lease: Option<&'a Lease>,
    pub(crate) metrics: &'a Metrics,
}
