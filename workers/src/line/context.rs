//! What settling takes: for the lines of a family, and for one queue.

use std::sync::Arc;

use firstcome_contract::family::Family;
use firstcome_process::database::Pool;

use super::{Announcer, Notifier, lease::Lease, shared::Shared};
use crate::metrics::Metrics;

/// What it takes to settle the lines of a family.
#[derive(Debug)]
pub struct Context {
    /// The family whose lines these are.
    pub family: Family,
    /// The database in which their jobs are settled.
    pub pool: Pool,
    /// Tells the APIs the outcomes.
    pub announcer: Announcer,
    /// Wakes the relay when there are events.
    pub notifier: Notifier,
    /// The counters of the process.
    pub metrics: Arc<Metrics>,
    /// Where small batches of these lines meet.
    pub shared: Shared,
}

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
