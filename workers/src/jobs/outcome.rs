//! What a handler decides for one job, and why it may not.

use firstcome_contract::{event::Event, failure::Failure, job::Status, rejection::Rejection};
use serde::Serialize;
use serde_json::value::RawValue;

/// How one job ends. "No" is an outcome, committed and acknowledged like a "yes"; retrying it
/// would be a bug.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The job's result, as JSON; its effects are in the same transaction.
    Succeeded(Box<RawValue>),
    /// A business "no", with what the code leaves open as a JSON object.
    Rejected(Rejection, Option<Box<RawValue>>),
    /// The job cannot be processed; a dead letter goes with it.
    Failed(Failure),
}

/// What a handler decided for its jobs; their effects are written.
#[derive(Debug, Default)]
pub struct Decided {
    /// One per job, in the same order.
    pub outcomes: Vec<Outcome>,
    /// What happened by that.
    pub events: Vec<Event>,
}

/// Why a handler has no outcomes for its jobs.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The database failed; another attempt may succeed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// A bug of the handler, which no attempt changes: the job that brings it out fails.
    #[error("{0}")]
    Broken(String),
}

impl From<serde_json::Error> for HandlerError {
    fn from(error: serde_json::Error) -> Self {
        Self::Broken(format!("what it wrote is not JSON: {error}"))
    }
}

impl Outcome {
    /// The outcome of a job that succeeded with this result.
    ///
    /// # Errors
    /// If the result is not JSON; the results of this crate always are.
    pub fn succeeded(result: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::value::to_raw_value(result).map(Self::Succeeded)
    }

    /// The status that is stored and polled.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Succeeded(_) => Status::Succeeded,
            Self::Rejected(..) => Status::Rejected,
            Self::Failed(_) => Status::Failed,
        }
    }

    /// The code of the rejection or failure; `None` for a success.
    #[must_use]
    pub const fn code(&self) -> Option<&'static str> {
        match self {
            Self::Succeeded(_) => None,
            Self::Rejected(rejection, _) => Some(rejection.code()),
            Self::Failed(failure) => Some(failure.code()),
        }
    }

    /// The result of a success, as JSON.
    #[must_use]
    pub fn result(&self) -> Option<&RawValue> {
        match self {
            Self::Succeeded(result) => Some(result),
            Self::Rejected(..) | Self::Failed(_) => None,
        }
    }

    /// What the code of a rejection leaves open (which products are short, say), as a JSON object.
    #[must_use]
    pub fn detail(&self) -> Option<&RawValue> {
        match self {
            Self::Rejected(_, detail) => detail.as_deref(),
            Self::Succeeded(_) | Self::Failed(_) => None,
        }
    }
}
