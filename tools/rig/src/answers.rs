//! The API as its clients see it: what they send, and what the answers mean.

use std::time::Duration;

use chrono::{DateTime, Utc};
use firstcome_contract::job::{
    cancel_order::OrderCancelled,
    issue_coupon::CouponIssued,
    place_order::{LimitedItem, OrderPlaced, ShortItem},
};
use http::{
    Method, StatusCode, Uri,
    header::{HeaderName, HeaderValue, LOCATION},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::http::{Answer, Client, NoAnswer, call};

/// The header that makes a submission safe to repeat.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request that was answered with 202.
#[derive(Debug, Clone, Copy)]
pub struct Accepted {
    /// What was asked for: two requests that share a key have one intent.
    pub intent: usize,
    /// The job that was accepted.
    pub job: Uuid,
    /// The user that asked.
    pub user: i64,
    /// When the answer came, counted from the opening.
    pub at: Duration,
}

/// The result of a job that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Success {
    /// What `issue-coupon` gives.
    Coupon(CouponIssued),
    /// What `place-order` gives.
    Order(OrderPlaced),
    /// What `cancel-order` gives.
    Cancelled(OrderCancelled),
}

/// What `out-of-stock` and `limit-exceeded` add to their code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Lines", into = "Lines")]
pub struct Detail {
    /// The items that are short.
    pub items: Vec<ShortItem>,
    /// The items that are over the customer's limit.
    pub limited: Vec<LimitedItem>,
}

/// Both are called `lines`.
#[derive(Serialize, Deserialize)]
struct Lines {
    #[serde(default)]
    lines: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Short(ShortItem),
    Limited(LimitedItem),
}

impl From<Lines> for Detail {
    fn from(Lines { lines }: Lines) -> Self {
        let mut detail = Self::default();
        for line in lines {
            match line {
                Line::Short(item) => detail.items.push(item),
                Line::Limited(item) => detail.limited.push(item),
            }
        }
        detail
    }
}

impl From<Detail> for Lines {
    fn from(Detail { items, limited }: Detail) -> Self {
        let short = items.into_iter().map(Line::Short);
        Self { lines: short.chain(limited.into_iter().map(Line::Limited)).collect() }
    }
}

/// How a job ended; from a poll or from the database, which must agree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// `succeeded`, `rejected` or `failed`.
    pub status: String,
    /// The code, unless it succeeded.
    pub code: Option<String>,
    /// What is said besides the code.
    pub detail: Detail,
    /// The result, if it succeeded.
    pub result: Option<Success>,
    /// When the transaction that decided the job ended.
    pub settled_at: DateTime<Utc>,
}

impl Outcome {
    /// The coupon, if it succeeded as such a job.
    #[must_use]
    pub fn coupon(&self) -> Option<&CouponIssued> {
        match &self.result {
            Some(Success::Coupon(coupon)) => Some(coupon),
            Some(Success::Order(_) | Success::Cancelled(_)) | None => None,
        }
    }

    /// The order, if it succeeded as such a job.
    #[must_use]
    pub fn order(&self) -> Option<&OrderPlaced> {
        match &self.result {
            Some(Success::Order(order)) => Some(order),
            Some(Success::Coupon(_) | Success::Cancelled(_)) | None => None,
        }
    }

    /// What came back, if it succeeded as a job that cancels an order.
    #[must_use]
    pub fn cancelled(&self) -> Option<&OrderCancelled> {
        match &self.result {
            Some(Success::Cancelled(cancelled)) => Some(cancelled),
            Some(Success::Coupon(_) | Success::Order(_)) | None => None,
        }
    }

    /// The code, or `succeeded`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.code.as_deref().unwrap_or(&self.status)
    }
}

/// A settled job, as a poll told of it.
#[derive(Debug, Clone)]
pub struct SettledJob {
    /// What was asked for, as in [`Accepted`].
    pub intent: usize,
    /// The job that was settled.
    pub job: Uuid,
    /// The user that asked.
    pub user: i64,
    /// When the job was submitted.
    pub submitted_at: DateTime<Utc>,
    /// What the job came to.
    pub outcome: Outcome,
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
    result: Option<Success>,
    error: Option<Problem>,
}

/// The path that asks for a coupon.
///
/// # Errors
/// Never: an id is digits.
pub fn coupon_path(coupon: i64) -> anyhow::Result<Uri> {
    Ok(Uri::try_from(format!("/api/coupons/{coupon}/issue"))?)
}

/// The path that cancels an order.
///
/// # Errors
/// Never: an id is digits.
pub fn cancel_path(order: i64) -> anyhow::Result<Uri> {
    Ok(Uri::try_from(format!("/api/orders/{order}/cancel"))?)
}

/// Polls a job once; the answer is held until the job is settled or 10 s are over.
///
/// # Errors
/// [`NoAnswer`], within the client's deadline.
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
    Settled(SettledJob),
    /// The job is still waiting.
    Queued,
    /// The API has no answer just now: a 503.
    Unavailable,
    /// The API never promised such an answer.
    Unexpected(String),
}

/// Reads the answer to a poll.
#[must_use]
pub fn read_poll(accepted: &Accepted, answer: &Answer) -> Poll {
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        return Poll::Unavailable;
    }
    if answer.status != StatusCode::OK {
        let (status, code) = describe(answer);
        return Poll::Unexpected(format!("{status} {} to a poll", code.unwrap_or_default()));
    }
    match serde_json::from_slice::<JobView>(&answer.body) {
        Ok(JobView { settled_at: None, status, .. }) if status == "queued" => Poll::Queued,
        Ok(JobView { settled_at: Some(settled_at), status, submitted_at, result, error }) => {
            let (code, detail) = error.map(|problem| (problem.code, problem.detail)).unzip();
            Poll::Settled(SettledJob {
                intent: accepted.intent,
                job: accepted.job,
                user: accepted.user,
                submitted_at,
                outcome: Outcome {
                    status,
                    code,
                    detail: detail.unwrap_or_default(),
                    result,
                    settled_at,
                },
            })
        }
        Ok(JobView { status, .. }) => {
            Poll::Unexpected(format!("a poll said {status} without settledAt"))
        }
        Err(error) => Poll::Unexpected(format!("a poll's answer does not read: {error}")),
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
        let accepted = Accepted { intent: 3, job: Uuid::nil(), user: 7, at: Duration::ZERO };
        let poll = |status, body: &str| {
            let body = Bytes::copy_from_slice(body.as_bytes());
            read_poll(&accepted, &Answer { status, headers: HeaderMap::new(), body })
        };
        let queued = r#"{"status":"queued","submittedAt":"2030-01-01T00:00:00Z","settledAt":null,"result":null,"error":null}"#;
        assert!(matches!(poll(StatusCode::OK, queued), Poll::Queued));
        let rejected = r#"{"status":"rejected","submittedAt":"2030-01-01T00:00:00Z","settledAt":"2030-01-01T00:00:01Z",
                           "result":null,"error":{"code":"coupon-sold-out","status":409}}"#;
        let Poll::Settled(job) = poll(StatusCode::OK, rejected) else { panic!("not settled") };
        assert_eq!(
            (job.outcome.status.as_str(), job.outcome.name(), job.intent, job.user),
            ("rejected", "coupon-sold-out", 3, 7)
        );
        let short = r#"{"status":"rejected","submittedAt":"2030-01-01T00:00:00Z","settledAt":"2030-01-01T00:00:01Z","result":null,
                        "error":{"code":"out-of-stock","lines":[{"productId":1,"requested":2,"available":1}]}}"#;
        let Poll::Settled(job) = poll(StatusCode::OK, short) else { panic!("not settled") };
        assert_eq!(job.outcome.detail.items[0].available, 1);
        let limited = r#"{"status":"rejected","submittedAt":"2030-01-01T00:00:00Z","settledAt":"2030-01-01T00:00:01Z","result":null,
                          "error":{"code":"limit-exceeded","lines":[{"productId":1,"requested":2,"bought":1,"limit":2}]}}"#;
        let Poll::Settled(job) = poll(StatusCode::OK, limited) else { panic!("not settled") };
        assert_eq!((job.outcome.detail.limited[0].bought, job.outcome.detail.items.len()), (1, 0));
        let placed = r#"{"status":"succeeded","submittedAt":"2030-01-01T00:00:00Z","settledAt":"2030-01-01T00:00:01Z","error":null,
                         "result":{"orderId":9,"itemsAmount":50,"discount":20,"paid":30,"dropped":[]}}"#;
        let Poll::Settled(job) = poll(StatusCode::OK, placed) else { panic!("not settled") };
        assert_eq!(job.outcome.order().map(|order| order.paid.get()), Some(30));
        let cancelled = r#"{"status":"succeeded","submittedAt":"2030-01-01T00:00:00Z","settledAt":"2030-01-01T00:00:01Z","error":null,
                            "result":{"orderId":9,"refunded":30,"couponReturned":true}}"#;
        let Poll::Settled(job) = poll(StatusCode::OK, cancelled) else { panic!("not settled") };
        assert_eq!(job.outcome.cancelled().map(|order| order.refunded.get()), Some(30));
        assert_eq!((job.outcome.order(), job.outcome.coupon()), (None, None));
        assert!(matches!(poll(StatusCode::SERVICE_UNAVAILABLE, "{}"), Poll::Unavailable));
        let Poll::Unexpected(what) = poll(StatusCode::NOT_FOUND, r#"{"code":"job-not-found"}"#)
        else {
            panic!()
        };
        assert_eq!(what, "404 Not Found job-not-found to a poll");
    }
}
