//! One request to the data platform: CloudEvents 1.0, HTTP protocol binding, batched content mode.

use std::{path::Path, time::Duration};

use anyhow::Context;
use firstcome_contract::{event::Event, trace::Trace};
use firstcome_process::{certificates, telemetry};
use reqwest::{Certificate, Client, StatusCode, Url, header, redirect};
use sha2::{Digest, Sha256};
use tracing::{Instrument, Span, field::Empty};

use crate::events::{
    subscribe::Received,
    webhook::{self, Credentials},
};

/// The longest `Retry-After` that is honoured: a mistaken one must not stop deliveries for days.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// The data platform: an HTTP client, and the URL that it posts events to.
#[derive(Debug)]
pub struct Platform {
    client: Client,
    url: Url,
    timeout: Duration,
    credentials: Credentials,
}

/// How the data platform answered a request.
#[derive(Debug)]
pub(super) enum Delivery {
    /// 2xx.
    Accepted,
    /// A 4xx that repeating would not change.
    Refused(String),
    /// Anything that may pass: no answer, 5xx, 408, 425, 429, or a status that speaks of our
    /// configuration and not of the events (3xx, 401, 403, 404 …).
    Failed { reason: String, retry_after: Option<Duration> },
}

impl Platform {
    /// The platform at this URL, which may take so long to answer. For `https` the certificates in
    /// `ca_file` (PEM) are trusted and no others; without a file, the public ones that browsers trust.
    ///
    /// # Errors
    /// The URL is malformed or not of HTTP; the file cannot be read or holds no certificate.
    pub fn new(
        url: &str,
        ca_file: Option<&Path>,
        timeout: Duration,
        credentials: Credentials,
    ) -> anyhow::Result<Self> {
        let url: Url = url.parse().context("DATA_PLATFORM_URL")?;
        anyhow::ensure!(
            ["http", "https"].contains(&url.scheme()),
            "DATA_PLATFORM_URL: only http:// and https:// are supported"
        );
        let trusted = match ca_file {
            Some(path) => read_certificates(path)
                .with_context(|| format!("DATA_PLATFORM_CA_FILE: {}", path.display()))?,
            None => certificates::trusted(None)?,
        };
        let client = Client::builder()
            .timeout(timeout)
            .tls_certs_only(trusted)
            // Whom it points to is not who was configured, and of a POST it may make a GET.
            .redirect(redirect::Policy::none())
            .build();
        let client = client.context("cannot make an HTTP client")?;
        Ok(Self { client, url, timeout, credentials })
    }

    /// The longest that one delivery takes, from connecting to the answer.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) async fn deliver(&self, events: &[Received]) -> Delivery {
        let span = tracing::info_span!(
            "deliver",
            otel.kind = "client",
            otel.status_code = Empty,
            http.request.method = "POST",
            server.address = self.url.host_str(),
            events = events.len(),
            outcome = Empty,
            reason = Empty,
        );
        let trace = traced(&span, events);
        let delivery = self.post(events, trace.as_ref()).instrument(span.clone()).await;
        let (outcome, reason) = match &delivery {
            Delivery::Accepted => ("accepted", None),
            Delivery::Refused(reason) => ("refused", Some(reason)),
            Delivery::Failed { reason, .. } => ("failed", Some(reason)),
        };
        span.record("outcome", outcome);
        if let Some(reason) = reason {
            span.record("reason", reason).record("otel.status_code", "ERROR");
        }
        delivery
    }

    async fn post(&self, received: &[Received], trace: Option<&Trace>) -> Delivery {
        let events: Vec<&Event> = received.iter().map(|received| &received.event).collect();
        let body = match serde_json::to_vec(&events) {
            Ok(body) => body,
            Err(error) => return Delivery::Refused(error.to_string()),
        };
        let key = key(received);
        let mut request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/cloudevents-batch+json; charset=utf-8")
            .header("Idempotency-Key", &key);
        let now = chrono::Utc::now().timestamp().unsigned_abs();
        if let Some(signature) = self.credentials.sign(&key, now, &body) {
            request = request
                .header(webhook::ID, &key)
                .header(webhook::TIMESTAMP, now)
                .header(webhook::SIGNATURE, signature);
        }
        if let Some(Trace { parent, state }) = trace {
            request = request.header("traceparent", parent.to_string());
            if let Some(state) = state {
                request = request.header("tracestate", state.as_str());
            }
        }
        if let Some(token) = self.credentials.token() {
            request = request.bearer_auth(token);
        }
        match request.body(body).send().await {
            Ok(answer) => judge(answer.status(), retry_after(answer.headers())),
            Err(error) => {
                // With its causes, such as a certificate that nobody vouches for.
                let reason = format!("{:#}", anyhow::Error::from(error.without_url()));
                Delivery::Failed { reason, retry_after: None }
            }
        }
    }
}

/// The trace that a request belongs to. Without a collector there is none of its own.
fn traced(span: &Span, received: &[Received]) -> Option<Trace> {
    let traces = received.iter().map(|received| received.event.trace.as_ref());
    let of_events = telemetry::gather(span, traces);
    telemetry::trace(span).or_else(|| of_events.cloned())
}

/// The same events make the same key, and nothing else does: a platform may answer a key that it knows
/// without a look at the events. One that was refused and is redriven is asked anew.
fn key(received: &[Received]) -> String {
    let mut digest = Sha256::new();
    for Received { event, attempts } in received {
        digest.update(event.id.as_bytes());
        digest.update(attempts.to_be_bytes());
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_certificates(path: &Path) -> anyhow::Result<Vec<Certificate>> {
    let certificates = certificates::trusted(Some(&std::fs::read(path)?))?;
    anyhow::ensure!(!certificates.is_empty(), "no certificate in it");
    Ok(certificates)
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
        let hint = if status.is_redirection() { ", which is not followed" } else { "" };
        Delivery::Failed { reason: format!("it answered {status}{hint}"), retry_after }
    }
}

fn retry_after(headers: &header::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use chrono::DateTime;
    use firstcome_contract::{
        event::{Data, ProductSoldOut},
        ids::ProductId,
    };
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_platform_needs_a_url_and_certificates_that_can_be_read() {
        let new = |url, ca_file: Option<&str>| {
            let (ca_file, second) = (ca_file.map(Path::new), Duration::from_secs(1));
            let platform = Platform::new(url, ca_file, second, Credentials::default());
            platform.map(|_| ()).map_err(|error| error.to_string())
        };
        for url in ["http://127.0.0.1:9/events", "https://example.com/events"] {
            assert_eq!(new(url, None), Ok(()));
        }
        for url in ["ftp://example.com", "example.com/events"] {
            assert!(new(url, None).unwrap_err().contains("DATA_PLATFORM_URL"));
        }
        for file in ["no-such-file.pem", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
            let error = new("https://example.com", Some(file)).unwrap_err();
            assert_eq!(error, format!("DATA_PLATFORM_CA_FILE: {file}"));
        }
    }

    #[test]
    fn a_key_stands_for_these_events_in_this_attempt() {
        let event = |id: u128, attempts| {
            let data = Data::ProductSoldOut(ProductSoldOut { product_id: ProductId::new(1) });
            let event = Event::new(Uuid::from_u128(id), DateTime::UNIX_EPOCH, data);
            Received { event, attempts }
        };
        let (one, two, three) = (event(1, 0), event(2, 0), event(3, 0));
        let batches = [
            vec![one.clone(), two.clone()],
            vec![one.clone(), three.clone()],
            vec![two.clone(), one.clone()],
            vec![one.clone(), two.clone(), three],
            vec![one.clone()],
            vec![event(1, 1)],
            vec![event(1, 2)],
        ];
        let keys: HashSet<String> = batches.iter().map(|batch| key(batch)).collect();
        assert_eq!(keys.len(), batches.len());
        assert!(keys.iter().all(|key| key.len() == 64));
        assert_eq!(key(&[one.clone(), two.clone()]), key(&[one, two]));
    }

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
