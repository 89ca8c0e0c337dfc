//! `GET /api/admin/queues/history`

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use firstcome_contract::line::Line;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{auth::Auditor, json},
    lines::{Figures, Sample},
    state::AppState,
};

/// What this API process saw: from its start, and with `null` where it could not know.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = QueueHistory, example = json!({
    "at": ["2026-03-01T12:00:00.000Z", "2026-03-01T12:00:05.000Z"],
    "lines": [{"queue": "firstcome.coupon.1.05", "waitingJobs": [9_400, 120], "settledJobs": [91_204, 133_480], "oldestSeconds": [1, 0]}],
}))]
struct HistoryView {
    /// Every 5 seconds of the last 15 minutes, oldest first.
    at: Vec<DateTime<Utc>>,
    lines: Vec<LineHistoryView>,
}

/// A line's figures at these instants, as `GET /api/admin/queues` told them then.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LineHistory)]
struct LineHistoryView {
    queue: String,
    waiting_jobs: Vec<Option<u64>>,
    settled_jobs: Vec<Option<u64>>,
    oldest_seconds: Vec<Option<i64>>,
}

/// How the lines fared over the last 15 minutes.
///
/// # Errors
/// 401, 403
#[utoipa::path(
    get, path = "/api/admin/queues/history", operation_id = "getQueueHistory", tag = "Admin",
    responses((status = 200, description = "All lines' figures.", body = HistoryView)),
)]
pub async fn queue_history(State(state): State<AppState>, _auditor: Auditor) -> Response {
    json::ok(&view(&state.lines.lately(), &state.config.broker.queue_namespace))
}

fn view(samples: &[Sample], namespace: &str) -> HistoryView {
    let mut told: BTreeMap<Line, BTreeMap<usize, &Figures>> = BTreeMap::new();
    for (instant, sample) in samples.iter().enumerate() {
        for (line, figures) in &sample.lines {
            told.entry(*line).or_default().insert(instant, figures);
        }
    }
    let lines = told.into_iter().map(|(line, figures)| {
        let instants = (0..samples.len()).map(|instant| figures.get(&instant));
        LineHistoryView {
            queue: line.queue(namespace),
            waiting_jobs: instants.clone().map(|figures| Some(figures?.waiting)).collect(),
            settled_jobs: instants.clone().map(|figures| Some(figures?.settled)).collect(),
            oldest_seconds: instants.map(|figures| Some(figures?.oldest)).collect(),
        }
    });
    HistoryView { at: samples.iter().map(|sample| sample.at).collect(), lines: lines.collect() }
}
