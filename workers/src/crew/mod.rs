//! Who serves what: workers join, share the lines among them, and bring a change of the routing about.

mod canary;
pub(crate) mod control;
pub(crate) mod lease;
mod redrive;
pub(crate) mod role;
pub(crate) mod routing;
mod upkeep;

pub use role::{Role, run};
pub use routing::{lines, set_partitions};
pub use upkeep::make_lines;
