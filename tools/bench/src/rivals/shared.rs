//! What the handlers of all rivals share: state, ids, answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::FromRef,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::Utc;
use firstcome_api::http::{
    auth::Verifier,
    limit::Limiter,
    problem::{Code, Problem},
};
use firstcome_contract::{
    job::{JobId, JobKind},
    line::Place,
};
use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::Semaphore;

use super::{publisher::Publisher, script::RedisLua};

/// How long a request may wait for a connection to the database, or for a lock: far above what any
/// load of the benchmark makes it wait.
pub(super) const WAIT_DEADLINE: Duration = Duration::from_secs(20);

/// What the handlers share.
#[derive(Clone)]
pub(super) struct App {
    pub(super) verifier: Verifier,
    pub(super) shared: Arc<Shared>,
}

impl FromRef<App> for Verifier {
    fn from_ref(app: &App) -> Self {
        app.verifier.clone()
    }
}

impl FromRef<App> for Limiter {
    fn from_ref(_: &App) -> Self {
        Self::unlimited()
    }
}

impl FromRef<App> for Arc<Shared> {
    fn from_ref(app: &App) -> Self {
        Self::clone(&app.shared)
    }
}

/// What one server has: see its design for what it needs of it.
pub(super) struct Shared {
    pub(super) pool: PgPool,
    /// As many as the pool has connections: see the design `redis-lock`.
    pub(super) contenders: Semaphore,
    pub(super) redis: Option<redis::aio::ConnectionManager>,
    pub(super) redis_lua: Option<RedisLua>,
    pub(super) publisher: Option<Publisher>,
    pub(super) sequence: AtomicU32,
}

impl Shared {
    /// A time-ordered id, as the API makes them, but without its signature.
    pub(super) fn job_id(&self, kind: JobKind) -> JobId {
        let millis = u64::try_from(Utc::now().timestamp_millis()).unwrap_or_default();
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        JobId::compose(millis, kind, Place::UNKNOWN, sequence, 0)
    }
}

/// What a request ended with, other than success.
pub(super) enum Failed {
    /// The API's own error document.
    Problem(Problem),
    /// 503: the design gave up.
    GaveUp,
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Code> for Failed {
    fn from(code: Code) -> Self {
        Self::Problem(Problem::new(code))
    }
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        if error.as_database_error().and_then(|error| error.constraint())
            == Some("user_coupons_one_per_user")
        {
            return Code::CouponAlreadyIssued.into();
        }
        eprintln!("{error}");
        Code::DatabaseUnavailable.into()
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        match self {
            Self::Problem(problem) => problem.into_response(),
            Self::GaveUp => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        }
    }
}

/// A success: what a settled job of ours answers to its poll, as far as it matters.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<R> {
    job_id: JobId,
    kind: &'static str,
    status: &'static str,
    result: R,
}

pub(super) fn done<R: Serialize>(
    job_id: JobId,
    kind: JobKind,
    status: &'static str,
    result: R,
) -> Response {
    let done = Done { job_id, kind: kind.as_str(), status, result };
    match serde_json::to_vec(&done) {
        Ok(body) => (StatusCode::CREATED, [(header::CONTENT_TYPE, "application/json")], body)
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
