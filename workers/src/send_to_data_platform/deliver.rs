//! One request to the data platform: CloudEvents 1.0, HTTP protocol binding, batched content mode.

use std::time::Duration;

use anyhow::Context;
use firstcome_shared::event::OrderCompleted;
use reqwest::{Client, StatusCode, Url, header};

/// The longest `Retry-After` that is honoured.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Where the events go.
#[derive(Debug)]
pub(super) struct Platform {
    client: Client,
    url: Url,
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Delivery {
    /// 2xx.
    Accepted,
    /// A 4xx that repeating would not change.
    Refused(String),
    /// Anything that may pass: no answer, 5xx, 408, 425, 429, or a status that speaks of our
    /// configuration and not of the events (401, 403, 404 …).
    Failed { reason: String, retry_after: Option<Duration> },
}

impl Platform {
    pub(super) fn new(url: &str, patience: Duration) -> anyhow::Result<Self> {
        let url: Url = url.parse().context("DATA_PLATFORM_URL")?;
        anyhow::ensure!(url.scheme() == "http", "DATA_PLATFORM_URL: only http:// is supported yet");
        let client =
            Client::builder().timeout(patience).build().context("cannot make an HTTP client")?;
        Ok(Self { client, url })
    }

    pub(super) async fn deliver(&self, events: &[OrderCompleted]) -> Delivery {
        let body = match serde_json::to_vec(events) {
            Ok(body) => body,
            Err(error) => return Delivery::Refused(error.to_string()),
        };
        let first = events.first().map(|event| event.id).unwrap_or_default();
        let request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/cloudevents-batch+json; charset=utf-8")
            // The same events make the same key; batches may be cut anew, event ids may not.
            .header("Idempotency-Key", format!("{first}-{}", events.len()))
            .body(body);
        match request.send().await {
            Ok(answer) => judge(answer.status(), retry_after(answer.headers())),
            Err(error) => Delivery::Failed { reason: error.to_string(), retry_after: None },
        }
    }
}

fn judge(status: StatusCode, retry_after: Option<Duration>) -> Delivery {
    // What speaks of the content, and of nothing else.
    let refusals = [
        StatusCode::BAD_REQUEST,
        StatusCode::CONFLICT,
        StatusCode::PAYLOAD_TOO_LARGE,
        StatusCode::UNPROCESSABLE_ENTITY,
    ];
    if status.is_success() {
        Delivery::Accepted
    } else if refusals.contains(&status) {
        Delivery::Refused(format!("the data platform answered {status}"))
    } else {
        Delivery::Failed { reason: format!("it answered {status}"), retry_after }
    }
}

fn retry_after(headers: &header::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_content_is_refused() {
        let accepted = [200, 201, 202, 204];
        let refused = [400, 409, 413, 422];
        for status in 200..600u16 {
            let judged = judge(StatusCode::from_u16(status).unwrap(), None);
            assert_eq!(
                matches!(judged, Delivery::Accepted),
                (200..300).contains(&status),
                "{status}"
            );
            assert_eq!(
                matches!(judged, Delivery::Refused(_)),
                refused.contains(&status),
                "{status}"
            );
        }
        assert!(accepted.iter().all(|status| (200..300).contains(status)));
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_bounded() {
        let after = |value: &'static str| {
            let mut headers = header::HeaderMap::new();
            headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static(value));
            retry_after(&headers).map(|delay| delay.as_secs())
        };
        assert_eq!(after("7"), Some(7));
        assert_eq!(after("100000"), Some(300));
        assert_eq!(after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }
}
