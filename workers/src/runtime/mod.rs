//! The machinery around a handler: take what is waiting, settle it in one transaction, acknowledge,
//! announce. Together with `shared/broker` the only code that knows lapin.

mod announce;
mod attempt;
mod batch;
mod canary;
mod consume;
mod control;
mod dead_letter;
mod direct;
mod lease;
mod notify;
mod parts;
mod record;
mod redrive;
mod report;
mod role;
mod routing;
mod settle;
mod speed;
pub(crate) mod subscribe;
mod trace;
mod upkeep;

pub use announce::Announcer;
pub(crate) use attempt::AttemptError;
pub use batch::MAX_JOBS;
pub use direct::settle_directly;
pub use notify::Notifier;
pub(crate) use parts::{Experience, Parts, Then};
pub(crate) use record::end_lost;
pub(crate) use report::{LineFigures, Stats};
pub use role::{Role, run};
pub use routing::{lines, set_partitions};
pub use upkeep::make_lines;
