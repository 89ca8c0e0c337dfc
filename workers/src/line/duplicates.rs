//! Jobs that come again: the broker may deliver a message twice, and a worker may die between its commit and its
//! acknowledgement. A job that has its outcome is dropped. One that repeats an idempotency key is another job: see
//! [`super::repeats`].

use std::collections::HashMap;

use chrono::NaiveDate;
use firstcome_contract::job::JobId;

/// What the database knows of the jobs of a batch, which may come again.
#[derive(Debug)]
pub(crate) struct Past {
    /// Those that have an outcome, and whether an operator gave them another attempt.
    pub(super) known: HashMap<JobId, bool>,
    /// Of jobs submitted up to this day (UTC), outcomes may be forgotten: see `purge`.
    pub(super) closed: Option<NaiveDate>,
}

impl Past {
    /// Whether the job has its outcome, for good.
    pub(crate) fn is_settled(&self, id: JobId) -> bool {
        self.known.get(&id) == Some(&false)
    }

    /// Whether the job has no outcome yet, not even one that is to make room for another.
    pub(crate) fn is_new(&self, id: JobId) -> bool {
        !self.known.contains_key(&id)
    }

    /// Whether the job may have had an outcome that is no longer known.
    pub(crate) fn may_have_forgotten(&self, id: JobId) -> bool {
        self.is_new(id) && self.closed >= Some(id.submitted_at().date_naive())
    }
}
