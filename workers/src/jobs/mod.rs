//! The business: what each kind of job does, in order, inside a transaction that is given to it.
//!
//! **Architecture invariant:** nothing here knows the broker, a line, a lease or a role. A handler decides in
//! memory and returns one outcome per job.

pub mod cancel_order;
mod contended;
pub mod issue_coupon;
pub(crate) mod outbox;
pub mod outcome;
pub mod place_order;
pub mod registry;
