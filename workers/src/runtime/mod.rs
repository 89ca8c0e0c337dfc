//! The machinery around a handler: take what is waiting, settle it in one transaction, acknowledge,
//! announce. Together with `shared/broker` the only code that knows lapin.

mod announce;
mod attempt;
mod batch;
mod consume;
mod record;
mod settle;
pub(crate) mod subscribe;

pub use announce::Announcer;
pub use consume::{Role, run};
