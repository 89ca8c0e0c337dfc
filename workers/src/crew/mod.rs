//! Who serves what: workers join, share the lines among them, and bring a change of the routing about.

mod canary;
pub(crate) mod control;
mod redrive;
pub(crate) mod role;
pub(crate) mod routing;
pub(crate) mod sharing;
mod upkeep;

pub use role::run;
pub use routing::{lines, set_partitions};
pub use upkeep::make_lines;

use firstcome_broker::BrokerArgs;

use crate::{line::Context, monitor};

/// What it takes to serve the lines of a family.
#[derive(Debug)]
pub struct Role {
    /// What it takes to settle their jobs.
    pub context: Context,
    /// The broker that holds the lines.
    pub broker: BrokerArgs,
    /// The role's part of health and metrics.
    pub monitor: monitor::Role,
}
