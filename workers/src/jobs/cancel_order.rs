//! `cancel-order`: known, and not done yet.

use firstcome_contract::{
    job::{CancelOrder, Envelope},
    rejection::Rejection,
};

use super::outcome::Outcome;

/// What is violated where another consumer was faster: nothing is written.
pub(super) const RACES: &[&str] = &[];

/// Rejects them all.
pub(super) fn apply(jobs: &[(&Envelope, &CancelOrder)]) -> Vec<Outcome> {
    jobs.iter().map(|_| Outcome::Rejected(Rejection::NotImplemented, None)).collect()
}
