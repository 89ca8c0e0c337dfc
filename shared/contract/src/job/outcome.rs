//! How a job ended, as the worker tells the API: a hint over Redis that spares the database a
//! query. The truth is the row in `job_outcomes`; a lost hint costs time only.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::Error as _};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::JobId;
use crate::{
    failure::Failure,
    ids::{CouponId, ProductId, UserId},
};

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its effects are committed, in the transaction that stored the outcome.
    Succeeded,
    /// The rules said no, with a code; trying again would not help.
    Rejected,
    /// We could not process it: it is dead-lettered and an operator must look; or it was lost.
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

/// The outcome of one job: the row in `job_outcomes`, as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    /// The job that ended.
    pub job_id: JobId,
    /// The caller who submitted it, whose polls it answers.
    pub user_id: UserId,
    /// Which of the three ends it came to.
    pub status: Status,
    /// The stable code, unless it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What the code leaves open, as fields to add to the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<RawValue>>,
    /// What the job's kind gives where it succeeded, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// When the outcome was stored.
    pub settled_at: DateTime<Utc>,
}

impl Settled {
    /// Of a job that was lost: see [`crate::lost`].
    #[must_use]
    pub fn lost(job_id: JobId, user_id: UserId, settled_at: DateTime<Utc>) -> Self {
        let (status, code) = (Status::Failed, Some(Failure::Lost.code().to_owned()));
        Self { job_id, user_id, status, code, detail: None, result: None, settled_at }
    }
}

/// What committed batches settled: one Redis message, the first line of it about all of them, then a line
/// for each outcome. Every API hears all of them and is asked for few, so it reads those alone.
#[derive(Debug)]
pub struct SettledBatch {
    /// The outcomes, in the order of the line.
    pub settled: Vec<Settled>,
    /// The coupons of which none was left for jobs of the batch.
    pub sold_out: Vec<CouponId>,
    /// The products of which the batch brought units back.
    pub restocked: Vec<ProductId>,
}

/// The first line of the message: what holds for the whole batch.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    sold_out: Vec<CouponId>,
    /// The release before this one does not tell it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    restocked: Vec<ProductId>,
}

impl SettledBatch {
    /// The message.
    ///
    /// # Errors
    /// None in practice: every field can be told in JSON.
    pub fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let head = Head { sold_out: self.sold_out.clone(), restocked: self.restocked.clone() };
        let mut message = serde_json::to_vec(&head)?;
        for settled in &self.settled {
            message.push(b'\n');
            message.extend_from_slice(
                settled.job_id.get().hyphenated().encode_lower(&mut [0; 36]).as_bytes(),
            );
            message.push(b' ');
            serde_json::to_writer(&mut message, settled)?;
        }
        Ok(message)
    }
}

/// A [`SettledBatch`] as it is heard, its outcomes still to be read.
#[derive(Debug)]
pub struct HeardBatch<'a> {
    /// Each job and the JSON of its [`Settled`].
    pub settled: Vec<(JobId, &'a [u8])>,
    /// As in [`SettledBatch`].
    pub sold_out: Vec<CouponId>,
    /// As in [`SettledBatch`].
    pub restocked: Vec<ProductId>,
}

impl<'a> HeardBatch<'a> {
    /// Reads the message, apart from the outcomes.
    ///
    /// # Errors
    /// If it is none.
    pub fn decode(message: &'a [u8]) -> serde_json::Result<Self> {
        let mut lines = message.split(|byte| *byte == b'\n');
        let Head { sold_out, restocked } =
            serde_json::from_slice(lines.next().unwrap_or_default())?;
        let settled = lines.map(|line| {
            let (id, json) = line.split_at_checked(36)?;
            Some((JobId::from(Uuid::try_parse_ascii(id).ok()?), json))
        });
        let settled: Option<_> = settled.collect();
        let settled =
            settled.ok_or_else(|| serde_json::Error::custom("an outcome without its job's id"))?;
        Ok(Self { settled, sold_out, restocked })
    }
}

/// The Redis channel for [`SettledBatch`]es.
#[must_use]
pub fn settled_channel(namespace: &str) -> String {
    format!("{namespace}:settled")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{job::JobKind, line::Place};

    #[test]
    fn a_batch_is_heard_as_it_was_told() {
        let settled = |sequence, code: Option<&str>| Settled {
            job_id: JobId::compose(
                1_750_000_000_000,
                JobKind::IssueCoupon,
                Place::UNKNOWN,
                sequence,
                9,
            ),
            user_id: UserId::new(7),
            status: if code.is_some() { Status::Rejected } else { Status::Succeeded },
            code: code.map(str::to_owned),
            detail: None,
            result: RawValue::from_string(r#"{"text":"two\nlines"}"#.to_owned()).ok(),
            settled_at: DateTime::from_timestamp_millis(1_750_000_000_123).unwrap(),
        };
        let told = SettledBatch {
            settled: vec![settled(1, None), settled(2, Some("COUPON_SOLD_OUT"))],
            sold_out: vec![CouponId::new(3)],
            restocked: vec![ProductId::new(4)],
        };
        let message = told.encode().unwrap();
        let heard = HeardBatch::decode(&message).unwrap();
        assert_eq!((heard.sold_out, heard.restocked), (told.sold_out, told.restocked));
        assert_eq!(heard.settled.len(), 2);
        for (told, (job, json)) in told.settled.iter().zip(heard.settled) {
            let heard: Settled = serde_json::from_slice(json).unwrap();
            assert_eq!(
                (job, heard.job_id, heard.code.as_ref()),
                (told.job_id, told.job_id, told.code.as_ref())
            );
            assert_eq!(heard.result.unwrap().get(), told.result.as_ref().unwrap().get());
        }
        let nothing =
            SettledBatch { settled: Vec::new(), sold_out: Vec::new(), restocked: Vec::new() };
        assert!(HeardBatch::decode(&nothing.encode().unwrap()).unwrap().settled.is_empty());
        for foreign in [&b""[..], b"[]", b"{\"soldOut\":[]}\nno job", b"{\"soldOut\":[]}\n"] {
            assert!(HeardBatch::decode(foreign).is_err(), "{foreign:?}");
        }
    }
}
