//! What the API's answers say to a customer.

use std::time::Duration;

use chrono::{DateTime, Utc};
use firstcome_contract::job::{
    issue_coupon::CouponIssued,
    place_order::{OrderPlaced, ShortLine},
};
use http::{
    Method, StatusCode, Uri,
    header::{HeaderName, HeaderValue, LOCATION},
};
use serde::Deserialize;
use uuid::Uuid;

use crate::load::{Answer, Client, NoAnswer, call};

/// A click that was answered with 202.
#[derive(Debug, Clone, Copy)]
pub struct Accepted {
    /// What was asked for: two clicks that share a key ask for one thing.
    pub wish: usize,
    /// The job.
    pub job: Uuid,
    /// Whose it is.
    pub user: i64,
    /// When the answer came, counted from the opening.
    pub at: Duration,
}

/// The result of a job that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Gain {
    /// Of `issue-coupon`.
    Coupon(CouponIssued),
    /// Of `place-order`.
    Order(OrderPlaced),
}

/// What `out-of-stock` adds to its code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Detail {
    /// The lines that are short.
    #[serde(default)]
    pub lines: Vec<ShortLine>,
}

/// How a job ended; from a poll or from the database, which must agree.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// `succeeded`, `rejected` or `failed`.
    pub status: String,
    /// The code, unless it succeeded.
    pub code: Option<String>,
    /// What it adds.
    pub detail: Detail,
    /// The result, if it succeeded.
    pub gain: Option<Gain>,
    /// When it was settled.
    pub settled_at: DateTime<Utc>,
}

impl Ended {
    /// The coupon, if it succeeded as such a job.
    #[must_use]
    pub fn coupon(&self) -> Option<&CouponIssued> {
        match &self.gain {
            Some(Gain::Coupon(coupon)) => Some(coupon),
            Some(Gain::Order(_)) | None => None,
        }
    }

    /// The order, if it succeeded as such a job.
    #[must_use]
    pub fn order(&self) -> Option<&OrderPlaced> {
        match &self.gain {
            Some(Gain::Order(order)) => Some(order),
            Some(Gain::Coupon(_)) | None => None,
        }
    }

    /// The code, or `succeeded`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.code.as_deref().unwrap_or(&self.status)
    }
}

/// What a poll told of a settled job.
#[derive(Debug, Clone)]
pub struct Told {
    /// What was asked for.
    pub wish: usize,
    /// The job.
    pub job: Uuid,
    /// Who asked.
    pub user: i64,
    /// When the job was submitted.
    pub submitted_at: DateTime<Utc>,
    /// How it ended.
    pub ended: Ended,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    #[serde(flatten)]
    detail: Detail,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JobView {
    status: String,
    submitted_at: DateTime<Utc>,
    settled_at: Option<DateTime<Utc>>,
    result: Option<Gain>,
    error: Option<Problem>,
}

/// The path of a click on "give me that coupon".
///
/// # Errors
/// Never: an id is digits.
pub fn click_path(coupon: i64) -> anyhow::Result<Uri> {
    Ok(Uri::try_from(format!("/api/coupons/{coupon}/issue"))?)
}

/// Polls a job once; the answer is held until the job is settled or 10 s are over.
///
/// # Errors
/// [`NoAnswer`].
pub async fn poll_once(
    client: &mut Client,
    job: Uuid,
    bearer: &HeaderValue,
) -> Result<Answer, NoAnswer> {
    let path =
        Uri::try_from(format!("/api/jobs/{job}")).map_err(|error| NoAnswer(error.to_string()))?;
    let mut call = call(Method::GET, path, Some(bearer));
    call.headers_mut()
        .insert(HeaderName::from_static("prefer"), HeaderValue::from_static("wait=10"));
    client.send(call).await
}

/// What the answer to a poll means.
#[derive(Debug)]
pub enum Poll {
    /// The job is settled.
    Told(Told),
    /// It is not.
    Queued,
    /// 503.
    Again,
    /// No such answer should be.
    Surprise(String),
}

/// Reads the answer to a poll.
#[must_use]
pub fn settled(accepted: &Accepted, answer: &Answer) -> Poll {
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        return Poll::Again;
    }
    if answer.status != StatusCode::OK {
        let (status, code) = describe(answer);
        return Poll::Surprise(format!("{status} {} to a poll", code.unwrap_or_default()));
    }
    match serde_json::from_slice::<JobView>(&answer.body) {
        Ok(JobView { settled_at: None, status, .. }) if status == "queued" => Poll::Queued,
        Ok(JobView { settled_at: Some(settled_at), status, submitted_at, result, error }) => {
            let (code, detail) = error.map(|problem| (problem.code, problem.detail)).unzip();
            Poll::Told(Told {
                wish: accepted.wish,
                job: accepted.job,
                user: accepted.user,
                submitted_at,
                ended: Ended {
                    status,
                    code,
                    detail: detail.unwrap_or_default(),
                    gain: result,
                    settled_at,
                },
            })
        }
        Ok(JobView { status, .. }) => {
            Poll::Surprise(format!("a poll said {status} without settledAt"))
        }
        Err(error) => Poll::Surprise(format!("a poll's answer does not read: {error}")),
    }
}

/// The job that a 202 tells of.
#[must_use]
pub fn job_of(answer: &Answer) -> Option<Uuid> {
    answer.headers.get(LOCATION)?.to_str().ok()?.strip_prefix("/api/jobs/")?.parse().ok()
}

/// The status and, of a problem, the code.
#[must_use]
pub fn describe(answer: &Answer) -> (StatusCode, Option<String>) {
    let problem = serde_json::from_slice::<Problem>(&answer.body).ok();
    (answer.status, problem.map(|problem| problem.code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::HeaderMap;

    #[test]
    fn polls_are_read() {
        let accepted = Accepted { wish: 3, job: Uuid::nil(), user: 7, at: Duration::ZERO };
        let poll = |status, body: &str| {
            let body = Bytes::copy_from_slice(body.as_bytes());
            settled(&accepted, &Answer { status, headers: HeaderMap::new(), body })
        };
        let queued = r#"{"status":"queued","submittedAt":"2030-01-01T00:00:00Z","settledAt":null,"result":null,"error":null}"#;
        assert!(matches!(poll(StatusCode::OK, queued), Poll::Queued));
        let rejected = r#"{"status":"rejected","submittedAt":"2030-01-01T00:00:00Z","settledAt":"2030-01-01T00:00:01Z",
                           "result":null,"error":{"code":"coupon-sold-out","status":409}}"#;
        let Poll::Told(told) = poll(StatusCode::OK, rejected) else { panic!("not told") };
        assert_eq!(
            (told.ended.status.as_str(), told.ended.name(), told.wish, told.user),
            ("rejected", "coupon-sold-out", 3, 7)
        );
        let short = r#"{"status":"rejected","submittedAt":"2030-01-01T00:00:00Z","settledAt":"2030-01-01T00:00:01Z","result":null,
                        "error":{"code":"out-of-stock","lines":[{"productId":1,"requested":2,"available":1}]}}"#;
        let Poll::Told(told) = poll(StatusCode::OK, short) else { panic!("not told") };
        assert_eq!(told.ended.detail.lines[0].available, 1);
        let placed = r#"{"status":"succeeded","submittedAt":"2030-01-01T00:00:00Z","settledAt":"2030-01-01T00:00:01Z","error":null,
                         "result":{"orderId":9,"itemsAmount":50,"discount":20,"paid":30,"dropped":[]}}"#;
        let Poll::Told(told) = poll(StatusCode::OK, placed) else { panic!("not told") };
        assert_eq!(told.ended.order().map(|order| order.paid.get()), Some(30));
        assert!(matches!(poll(StatusCode::SERVICE_UNAVAILABLE, "{}"), Poll::Again));
        let Poll::Surprise(what) = poll(StatusCode::NOT_FOUND, r#"{"code":"job-not-found"}"#)
        else {
            panic!()
        };
        assert_eq!(what, "404 Not Found job-not-found to a poll");
    }
}
