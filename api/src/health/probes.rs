//! `GET /health/live`, `GET /health/ready`

use axum::{extract::State, http::StatusCode, response::Response};
use firstcome_contract::family::Family;
use serde::Serialize;
use utoipa::{ToSchema, openapi::Array};

use crate::{
    http::{json, schema::families},
    state::AppState,
};

#[derive(Serialize, ToSchema)]
#[schema(example = json!({"ready": true, "broker": true, "database": true, "lines": true, "issuer": true, "stopping": false, "halted": [], "faults": []}))]
struct Readiness {
    /// It can accept jobs, and is not about to stop.
    ready: bool,
    /// RabbitMQ takes messages.
    broker: bool,
    /// PostgreSQL answered lately. Without it jobs are accepted, and settled later; whatever has to be read
    /// gets a 503.
    database: bool,
    /// The lines are known in which jobs are to stand.
    lines: bool,
    /// The keys are known with which tokens are signed.
    issuer: bool,
    /// It was told to stop: it accepts for `DRAIN_SECONDS` yet, and is not to be sent more.
    stopping: bool,
    /// Families whose lines an operator has halted: their jobs are accepted, and settled when they go on.
    #[schema(schema_with = halted_families)]
    halted: Vec<&'static str>,
    /// What is wrong with the set-up, each with a hint.
    faults: Vec<String>,
}

fn halted_families() -> Array {
    Array::new(families())
}

/// The process runs. Looks at nothing else: restarting it would not bring a dependency back.
#[utoipa::path(
    get, path = "/health/live", operation_id = "getLiveness", tag = "Operations", security(),
    responses((status = 200, description = "It runs.", body = String, example = json!("ok"))),
)]
pub async fn live() -> &'static str {
    "ok"
}

/// Whether it can accept jobs: also while the database is away, when taking it out of rotation would turn
/// away customers whom it can serve. Asks nobody: what is told is at most some seconds old.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "getReadiness", tag = "Operations", security(),
    responses(
        (status = 200, description = "It can accept jobs.", body = Readiness),
        (status = 503, description = "It cannot, or is about to stop.", body = Readiness),
    ),
)]
pub async fn ready(State(state): State<AppState>) -> Response {
    let (broker, lines) = (state.enqueuer.is_up(), state.lines.are_there());
    let stopping = state.draining.is_cancelled();
    let issuer = state.verifier.has_keys();
    let ready = broker && lines && issuer && !stopping;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let readiness = Readiness {
        ready,
        broker,
        database: state.lines.database_is_up(),
        lines,
        issuer,
        stopping,
        halted: state.lines.halted().into_iter().map(Family::as_str).collect(),
        faults: state.lines.faults(),
    };
    json::answer(status, &readiness)
}
