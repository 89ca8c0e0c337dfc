//! How a job ended, as the worker tells the API: a hint over Redis that spares the database a
//! query. The truth is the row in `job_outcomes`; a lost hint costs time only.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::JobId;
use crate::ids::{CouponId, UserId};

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its effects are committed.
    Succeeded,
    /// A business "no", with a code.
    Rejected,
    /// We could not process it; it is dead-lettered and an operator must look.
    Failed,
}

impl Status {
    /// The name in JSON and in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }

    /// The status with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Succeeded, Self::Rejected, Self::Failed]
            .into_iter()
            .find(|status| status.as_str() == name)
    }
}

/// One job's outcome.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    /// The job.
    pub job_id: JobId,
    /// Who submitted it.
    pub user_id: UserId,
    /// How it ended.
    pub status: Status,
    /// The stable code, unless it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What the code leaves open, as fields to add to the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<RawValue>>,
    /// The result, if it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// When the outcome was stored.
    pub settled_at: DateTime<Utc>,
}

/// What one committed batch settled: one Redis message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettledBatch {
    /// The queue that the batch came from.
    pub queue: String,
    /// The outcomes, in the order of the line.
    pub settled: Vec<Settled>,
    /// The coupons of which none was left for jobs of the batch.
    #[serde(default)]
    pub sold_out: Vec<CouponId>,
}

/// The Redis channel for [`SettledBatch`]es.
#[must_use]
pub fn settled_channel(namespace: &str) -> String {
    format!("{namespace}:settled")
}
