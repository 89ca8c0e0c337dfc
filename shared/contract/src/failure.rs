//! Why a job that was accepted could not be done: every reason for which it can end in `failed`.

use crate::codes::codes;

codes! {
    /// Why a job failed. Its code is public and stable, as a rejection's is.
    pub enum Failure {
        /// The message holds no job that this version knows.
        Undecodable = "job-undecodable",
        /// The database refuses this one job, deterministically, or its handler is broken.
        Unprocessable = "job-unprocessable",
        /// It came so late that its outcome, had it one, would be forgotten: it may not run again.
        Overdue = "job-overdue",
        /// It has no outcome and is in no line any more: see [`crate::lost`].
        Lost = "job-lost",
    }
}
