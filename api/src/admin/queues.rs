//! `GET /api/admin/queues`

use axum::{extract::State, response::Response};
use chrono::{DateTime, TimeDelta, Utc};
use firstcome_contract::line::{Line, LineName};
use serde::Serialize;
use serde_json::Value;
use utoipa::{
    ToSchema,
    openapi::{Array, Object},
};

use crate::{
    http::{
        auth::Auditor,
        json,
        page::List,
        problem::{Code, Problem},
        schema::{families, one_of},
    },
    lines::Known,
    state::AppState,
};

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Queue, example = json!({
    "queue": "firstcome.coupon.1.05", "family": "coupon", "partition": 5, "pinnedKey": null,
    "generation": 1, "state": "open", "halted": false, "ready": 120, "unacked": 256, "waitingJobs": 9_400, "consumers": 1,
    "owner": "worker-1:7", "oldestSeconds": 1, "settledPerSecond": 8_400.5, "settledJobs": 91_204,
    "lastProgressAt": "2026-03-01T12:00:01.250Z", "lastKnown": [], "hottest": [{"key": 1, "perSecond": 8_311.0}],
}))]
struct QueueView {
    /// The queue's name in the broker.
    queue: String,
    #[schema(schema_with = families)]
    family: &'static str,
    /// `null` for the line of a pinned key.
    #[schema(required)]
    partition: Option<u16>,
    /// The coupon or product that has this line of its own.
    #[schema(required)]
    pinned_key: Option<i64>,
    /// Counts up when the routing of the family changes; lines of older ones only drain.
    generation: i32,
    /// `open`; `waiting` for older lines to drain; `closed` to new jobs; `stalled` while nobody serves it,
    /// or its worker has stopped telling.
    #[schema(schema_with = states)]
    state: &'static str,
    /// An operator has halted its family: nobody serves it, on purpose.
    halted: bool,
    /// Messages in the queue that no consumer was given; `null` until the broker has told.
    #[schema(required)]
    ready: Option<u32>,
    /// Messages that its consumer holds, about.
    unacked: u64,
    /// Jobs that were accepted and are not settled; a message holds up to 128.
    waiting_jobs: u64,
    #[schema(required)]
    consumers: Option<u32>,
    /// The worker that serves it, as host:process, or did until its lease ran out; `null` if there is none.
    #[schema(required)]
    owner: Option<String>,
    /// How long the job at the head has waited.
    oldest_seconds: i64,
    settled_per_second: f64,
    /// Jobs that it settled since it was opened.
    settled_jobs: u64,
    /// When its worker last settled something, or saw its canary come out.
    #[schema(required)]
    last_progress_at: Option<DateTime<Utc>>,
    /// Who does not answer at present: figures that are known from there are the last known ones.
    #[schema(schema_with = sources)]
    last_known: Vec<&'static str>,
    /// The busiest keys, with jobs per second.
    #[schema(value_type = Vec<HotKey>)]
    hottest: Value,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "documents what the workers store")]
struct HotKey {
    /// The coupon or product.
    key: i64,
    per_second: f64,
}

const STATES: [&str; 4] = ["open", "waiting", "closed", "stalled"];
const SOURCES: [&str; 2] = ["broker", "database"];

fn sources() -> Array {
    Array::new(one_of(SOURCES))
}

fn states() -> Object {
    one_of(STATES)
}

/// Every line of jobs: how long it is, how fast it moves, who serves it. About a second old.
///
/// # Errors
/// 401, 403; 503 if no line is known.
#[utoipa::path(
    get, path = "/api/admin/queues", operation_id = "listQueues", tag = "Admin",
    responses((status = 200, description = "All lines.", body = List<QueueView>)),
    extensions(("x-codes" = json!([Code::BrokerUnavailable]))),
)]
pub async fn queues(State(state): State<AppState>, _auditor: Auditor) -> Result<Response, Problem> {
    let namespace = &state.config.broker.queue_namespace;
    let lines = state.lines.all();
    if lines.is_empty() {
        return Err(Problem::new(Code::BrokerUnavailable).retry_after(1));
    }
    let items = lines.into_iter().map(|(line, known)| view(line, known, namespace)).collect();
    Ok(json::ok(&List { items, next: None }))
}

fn view(line: Line, known: Known, namespace: &str) -> QueueView {
    let (partition, pinned_key) = match line.name {
        LineName::Partition(index) => (Some(index), None),
        LineName::Pin(key) => (None, Some(key)),
    };
    let [open, waiting, closed, stalled] = STATES;
    let state = match (known.is_closed, known.is_open) {
        _ if known.is_stalled() => stalled,
        (true, _) => closed,
        (false, true) => open,
        (false, false) => waiting,
    };
    let [broker, database] = SOURCES;
    let told = [(broker, known.is_told_by_broker()), (database, known.is_told_by_database())];
    let last_known = told.into_iter().filter(|(_, told)| !told).map(|(source, _)| source);
    let age = |oldest: TimeDelta| oldest.num_seconds();
    QueueView {
        queue: line.queue(namespace),
        family: line.family.as_str(),
        partition,
        pinned_key,
        generation: line.generation,
        state,
        halted: known.is_halted(),
        ready: known.depth.map(|depth| depth.ready),
        unacked: known.unacked(),
        waiting_jobs: known.waiting_jobs(),
        consumers: known.depth.map(|depth| depth.consumers),
        oldest_seconds: age(known.oldest(Utc::now())),
        settled_per_second: (known.rate() * 10.0).round() / 10.0,
        settled_jobs: known.settled_jobs(),
        last_known: last_known.collect(),
        last_progress_at: known.report.as_ref().map(|report| report.progress_at),
        hottest: known.report.map_or_else(|| Value::Array(Vec::new()), |report| report.hottest),
        owner: known.owner,
    }
}
