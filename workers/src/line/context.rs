//! What it takes to settle the lines of a family.

use std::sync::Arc;

use firstcome_contract::family::Family;
use firstcome_process::database::Pool;

use super::{Announcer, Notifier, shared::Shared};
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
