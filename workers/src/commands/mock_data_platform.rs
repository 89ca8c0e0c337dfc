//! A stand-in for the data platform, for development, demo and tests: it records what it gets, and
//! misbehaves on request. As platforms do, it answers an `Idempotency-Key` that it knows without a look at
//! the events.

use std::{
    collections::HashMap,
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
use firstcome_contract::event::{OrderCompleted, order_completed::Order};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

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
    /// The events, with how often each came.
    received: HashMap<Uuid, Received>,
    requests: u64,
    /// Requests that followed a redirection.
    astray: u64,
    /// How each key was answered first.
    answers: HashMap<String, StatusCode>,
    /// Events of this user are answered with 400.
    refused_user: Option<i64>,
}

/// An event that it accepted, as `GET /orders` lists it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Received {
    /// The event's id.
    pub id: Uuid,
    /// How often it came.
    pub times: u32,
    /// What it told, the first time.
    pub order: Order,
}

/// The figures at `GET /events`.
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

    /// The ids of the events that it accepted, with how often.
    #[must_use]
    pub fn received(&self) -> HashMap<Uuid, u32> {
        self.lock().received.values().map(|event| (event.id, event.times)).collect()
    }

    /// Serves `POST /events`, `GET /events`, `GET /orders` and `PUT /mode` until `stop`.
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
            .route("/events", get(report))
            .route("/orders", get(orders))
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
        let Ok(events) = serde_json::from_slice::<Vec<OrderCompleted>>(body) else {
            return StatusCode::BAD_REQUEST;
        };
        if events.iter().any(|event| Some(event.data.user_id.get()) == self.refused_user) {
            return StatusCode::BAD_REQUEST;
        }
        for event in events {
            let first = Received { id: event.id, times: 0, order: event.data };
            self.received.entry(event.id).or_insert(first).times += 1;
        }
        StatusCode::NO_CONTENT
    }
}

async fn go_astray(State(mock): State<MockDataPlatform>) -> StatusCode {
    mock.lock().astray += 1;
    StatusCode::OK
}

async fn report(State(mock): State<MockDataPlatform>) -> Response {
    let inner = mock.lock();
    let report = Report {
        requests: inner.requests,
        received: inner.received.values().map(|event| u64::from(event.times)).sum(),
        distinct: inner.received.len(),
    };
    json(&report)
}

async fn orders(State(mock): State<MockDataPlatform>) -> Response {
    json(&mock.lock().received.values().collect::<Vec<_>>())
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
