//! The machinery around a handler: take what is waiting, settle it in one transaction, announce,
//! acknowledge.
//!
//! **Architecture invariant:** nothing here knows what a job is about. What depends on its kind is asked of
//! [`crate::jobs::registry`].

pub(crate) mod announce;
pub(crate) mod attempt;
pub(crate) mod batch;
pub(crate) mod consume;
mod context;
pub(crate) mod dead_letter;
mod direct;
mod duplicates;
pub(crate) mod fence;
pub(crate) mod lease;
pub(crate) mod notify;
pub(crate) mod outcomes;
pub(crate) mod parts;
mod queue_context;
mod repeats;
pub(crate) mod report;
pub(crate) mod settle;
mod shared;
mod speed;
pub(crate) mod trace;

pub use announce::Announcer;
pub(crate) use attempt::AttemptError;
pub use batch::MAX_JOBS;
pub use context::Context;
pub use direct::settle_directly;
pub use notify::Notifier;
pub(crate) use outcomes::end_lost;
pub(crate) use parts::{Parts, Then, Tuning};
pub(crate) use report::{LineFigures, Stats};
pub use shared::Shared;
