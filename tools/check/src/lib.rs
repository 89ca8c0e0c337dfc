//! Whether a sale kept its promises: all that its clients asked, were told and saw, against what the database holds
//! in the end and against a shop that serves one after another.
//!
//! **Architecture invariant:** nothing here is linked with the API or the workers, and no rule does any I/O. What
//! cannot be decided for certain passes: a violation is one.

pub mod history;
pub mod report;
mod rules;
pub mod stored;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use uuid::Uuid;

pub use history::{History, Log};
pub use report::Report;
pub use stored::Stored;

/// Holds a history against all rules. The `opening` is what was stored before the first operation, `stored` what
/// is when nothing waits any more; `delivered` the ids of the events that the data platform got, repeats included.
#[must_use]
pub fn check(history: &History, opening: &Stored, stored: &Stored, delivered: &[Uuid]) -> Report {
    let delivered: BTreeSet<Uuid> = delivered.iter().copied().collect();
    rules::all(history, opening, stored, &delivered)
}
