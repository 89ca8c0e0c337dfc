//! What settling takes, whichever line it is.

use std::sync::Arc;

use firstcome_contract::family::Family;
use firstcome_process::database::Pool;

use super::{Announcer, Notifier};
use crate::metrics::Metrics;

/// All that it takes to settle the lines of a family.
#[derive(Debug)]
pub struct Context {
    /// Whose lines.
    pub family: Family,
    /// Where their jobs are settled.
    pub pool: Pool,
    /// Who hears of it.
    pub announcer: Announcer,
    /// Wakes who publishes its events.
    pub notifier: Notifier,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}
