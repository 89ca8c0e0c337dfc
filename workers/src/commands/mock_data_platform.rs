//! A stand-in for the data platform, for development, demo and tests: it records what it gets, and
//! misbehaves on request. As platforms do, it answers an `Idempotency-Key` that it knows without a look at
//! the events. With the sender's secret or token it hears nobody else.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get, post, put},
};
use firstcome_contract::{
    event::{Data, Event},
    ids::UserId,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::events::webhook::{self, Credentials, Signed};

/// How it behaves: `PUT /mode` with one of these names as the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// `ok`: 204.
    #[default]
    Ok,
    /// `slow`: 204 after a second.
    Slow,
    /// `error`: 500.
    Error,
    /// `overloaded`: 429 with `Retry-After: 1`.
    Overloaded,
    /// `hang`: no answer.
    Hang,
    /// `mute`: it takes the events, and does not answer.
    Mute,
    /// `elsewhere` (302): a redirection with this status, to where everything is taken and nothing is kept.
    Elsewhere(StatusCode),
}

/// The path that the mode `elsewhere` redirects to.
const ELSEWHERE: &str = "/elsewhere";

/// The stand-in: what it got so far, and how it behaves.
#[derive(Debug, Clone, Default)]
pub struct MockDataPlatform(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    mode: Mode,
    credentials: Credentials,
    /// Requests of who is not known.
    strangers: u64,
    /// The events, with how often each came.
    received: BTreeMap<Uuid, Received>,
    requests: u64,
    /// Of the last request.
    headers: HeaderMap,
    /// Requests that followed a redirection.
    astray: u64,
    /// How each key was answered first.
    answers: HashMap<String, StatusCode>,
    /// Events of this user are answered with 400.
    refused_user: Option<i64>,
}

/// An event that it accepted, as `GET /events` lists it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Received {
    /// How often it came.
    pub times: u32,
    /// What it told, the first time.
    pub event: Event,
}

/// What it got, as `GET /events` tells it: the figures, and each event, by its id.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Delivered {
    /// How much that is.
    #[serde(flatten)]
    pub figures: Report,
    /// What it accepted.
    pub items: Vec<Received>,
}

/// The figures at `GET /figures`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Report {
    /// Requests, also those that it did not accept.
    pub requests: u64,
    /// Events, each as often as it came.
    pub received: u64,
    /// Different events.
    pub distinct: usize,
}

impl MockDataPlatform {
    /// One that hears only who has these.
    #[must_use]
    pub fn of(credentials: Credentials) -> Self {
        let mock = Self::default();
        mock.lock().credentials = credentials;
        mock
    }

    /// Hears only who has these, from now on.
    pub fn set_credentials(&self, credentials: Credentials) {
        self.lock().credentials = credentials;
    }

    /// How many requests were answered with 401.
    #[must_use]
    pub fn strangers(&self) -> u64 {
        self.lock().strangers
    }

    /// Changes how it behaves.
    pub fn set_mode(&self, mode: Mode) {
        self.lock().mode = mode;
    }

    /// Refuses every batch with an event of this user.
    pub fn refuse_user(&self, user: i64) {
        self.lock().refused_user = Some(user);
    }

    /// How many requests came, and how many of them went where they were redirected to.
    #[must_use]
    pub fn requests(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.requests, inner.astray)
    }

    /// The headers of the last request.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        self.lock().headers.clone()
    }

    /// The ids of the events that it accepted, with how often.
    #[must_use]
    pub fn received(&self) -> HashMap<Uuid, u32> {
        self.lock().received.iter().map(|(id, received)| (*id, received.times)).collect()
    }

    /// The events that it accepted, by their ids.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.lock().received.values().map(|received| received.event.clone()).collect()
    }

    /// Whether it accepted such an event.
    #[must_use]
    pub fn has(&self, is_it: impl Fn(&Event) -> bool) -> bool {
        self.lock().received.values().any(|received| is_it(&received.event))
    }

    /// Serves `POST /events`, `GET /events`, `GET /figures`, `PUT /mode` and `GET /health/ready` until `stop`.
    ///
    /// # Errors
    /// The listener's.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let router = Router::new()
            .route("/events", post(receive))
            .route("/events", get(delivered))
            .route("/figures", get(figures))
            .route("/health/ready", get(async || "ok"))
            .route("/mode", put(set_mode))
            .route(ELSEWHERE, any(go_astray))
            .with_state(self);
        let serving = axum::serve(listener, router).into_future();
        // Whoever hangs is cut off.
        stop.run_until_cancelled(serving).await.unwrap_or(Ok(()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive(
    State(mock): State<MockDataPlatform>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mode = {
        let mut inner = mock.lock();
        inner.requests += 1;
        inner.headers.clone_from(&headers);
        if !is_known(&inner.credentials, &headers, &body) {
            inner.strangers += 1;
            return StatusCode::UNAUTHORIZED.into_response();
        }
        inner.mode
    };
    match mode {
        Mode::Ok | Mode::Mute => {}
        Mode::Slow => tokio::time::sleep(Duration::from_secs(1)).await,
        Mode::Error => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Mode::Overloaded => {
            return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response();
        }
        Mode::Hang => std::future::pending().await,
        Mode::Elsewhere(status) => {
            return (status, [(header::LOCATION, ELSEWHERE)]).into_response();
        }
    }
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let answer = mock.lock().take(key, &body);
    if mode == Mode::Mute {
        std::future::pending::<()>().await;
    }
    answer.into_response()
}

fn is_known(credentials: &Credentials, headers: &HeaderMap, body: &[u8]) -> bool {
    let header =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let message = Signed {
        id: header(webhook::ID),
        timestamp: header(webhook::TIMESTAMP).parse().unwrap_or_default(),
        signature: header(webhook::SIGNATURE),
        body,
    };
    let has_token = credentials.token().is_none_or(|token| {
        header("authorization").strip_prefix("Bearer ").is_some_and(|sent| sent == token)
    });
    has_token && credentials.verify(&message, chrono::Utc::now().timestamp().unsigned_abs())
}

impl Inner {
    fn take(&mut self, key: Option<&str>, body: &[u8]) -> StatusCode {
        if let Some(answer) = key.and_then(|key| self.answers.get(key)) {
            return *answer;
        }
        let answer = self.look_at(body);
        self.answers.extend(key.map(|key| (key.to_owned(), answer)));
        answer
    }

    fn look_at(&mut self, body: &[u8]) -> StatusCode {
        let Ok(events) = serde_json::from_slice::<Vec<Event>>(body) else {
            return StatusCode::BAD_REQUEST;
        };
        let refused = self.refused_user.map(UserId::new);
        if refused.is_some() && events.iter().any(|event| user_of(event) == refused) {
            return StatusCode::BAD_REQUEST;
        }
        for event in events {
            self.received.entry(event.id).or_insert(Received { times: 0, event }).times += 1;
        }
        StatusCode::NO_CONTENT
    }

    fn figures(&self) -> Report {
        Report {
            requests: self.requests,
            received: self.received.values().map(|event| u64::from(event.times)).sum(),
            distinct: self.received.len(),
        }
    }
}

const fn user_of(event: &Event) -> Option<UserId> {
    match &event.data {
        Data::OrderCompleted(order) => Some(order.user_id),
        Data::OrderCancelled(order) => Some(order.user_id),
        Data::CouponIssued(coupon) => Some(coupon.user_id),
        Data::CouponSoldOut(_) | Data::ProductSoldOut(_) => None,
    }
}

async fn go_astray(State(mock): State<MockDataPlatform>) -> StatusCode {
    mock.lock().astray += 1;
    StatusCode::OK
}

async fn delivered(State(mock): State<MockDataPlatform>) -> Response {
    let delivered = {
        let inner = mock.lock();
        Delivered { figures: inner.figures(), items: inner.received.values().cloned().collect() }
    };
    json(&delivered)
}

async fn figures(State(mock): State<MockDataPlatform>) -> Response {
    let figures = mock.lock().figures();
    json(&figures)
}

fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn set_mode(State(mock): State<MockDataPlatform>, name: String) -> StatusCode {
    let mode = match name.trim() {
        "ok" => Mode::Ok,
        "slow" => Mode::Slow,
        "error" => Mode::Error,
        "overloaded" => Mode::Overloaded,
        "hang" => Mode::Hang,
        "mute" => Mode::Mute,
        "elsewhere" => Mode::Elsewhere(StatusCode::FOUND),
        _ => return StatusCode::BAD_REQUEST,
    };
    mock.set_mode(mode);
    StatusCode::NO_CONTENT
}
