//! `GET /metrics`

use std::time::Duration;

use axum::{
    extract::State,
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::Utc;
use firstcome_broker::depth::Depth;
use firstcome_contract::{
    family::Family,
    line::{Line, LineName, Naming},
};
use firstcome_process::{
    database::Usage,
    metrics::{self, LineLabels},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::{
    http::{
        problem::{Code, Problem},
        requests::Requests,
    },
    lines::Known,
    metrics::Metrics,
    state::AppState,
};

/// What Prometheus reads: requests, jobs and lines, as `docs/metrics.md` lists them.
///
/// # Errors
/// None that is known.
#[utoipa::path(
    get, path = "/metrics", operation_id = "getMetrics", tag = "Operations", security(),
    responses((
        status = 200, description = "OpenMetrics 1.0 text.", body = String,
        content_type = "application/openmetrics-text",
    )),
)]
pub async fn scrape(State(state): State<AppState>) -> Result<Response, Problem> {
    let snapshot = Snapshot {
        requests: state.requests.clone(),
        jobs: state.metrics.clone(),
        connections: state.connections.open(),
        connections_limit: state.connections.limit(),
        connections_refused: state.connections.refused().clone(),
        waiting_polls: state.jobs.waiting(),
        streams: state.streams.count(),
        streams_limit: state.streams.limit(),
        streams_refused: state.streams.refused().clone(),
        broker_is_up: state.enqueuer.is_up(),
        broker_is_blocked: state.enqueuer.is_blocked(),
        database_is_up: state.lines.database_is_up(),
        redis_is_up: state.cache.is_up(),
        pool: state.pool.usage(),
        lines: state.lines.all(),
    };
    let text = metrics::text(&snapshot.registry()).map_err(|error| {
        tracing::error!(%error, "the metrics cannot be written");
        Problem::new(Code::InternalError)
    })?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// What was counted since the process started, and what is true at the moment of a scrape.
#[derive(Debug)]
pub struct Snapshot {
    /// Requests that were answered, by endpoint, status and time taken.
    pub requests: Requests,
    /// What became of requests for jobs.
    pub jobs: Metrics,
    /// How many connections clients have at present.
    pub connections: usize,
    /// How many connections clients may have.
    pub connections_limit: usize,
    /// Connections that were refused since the start, for that limit.
    pub connections_refused: Counter,
    /// Polls and submissions whose answers are held, and streams.
    pub waiting_polls: usize,
    /// Streams of events that are open.
    pub streams: usize,
    /// How many streams there may be.
    pub streams_limit: usize,
    /// Streams that were refused since the start, for that limit.
    pub streams_refused: Counter,
    /// Whether the broker takes jobs.
    pub broker_is_up: bool,
    /// The broker is there and takes none (memory or disk alarm).
    pub broker_is_blocked: bool,
    /// Whether PostgreSQL has answered lately.
    pub database_is_up: bool,
    /// Whether Redis answered when it was asked last.
    pub redis_is_up: bool,
    /// How the connections to PostgreSQL are used.
    pub pool: Usage,
    /// Every line, as this process knows it.
    pub lines: Vec<(Line, Known)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FamilyLabels {
    family: &'static str,
}

impl Snapshot {
    /// Makes a registry of all figures, for one scrape.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let mut all = metrics::registry();
        self.requests.register(&mut all);
        let help = "Clients that came when there were as many connections as there may be";
        all.register("http_connections_refused", help, self.connections_refused.clone());
        let help = "Streams of events that were refused when there were as many as there may be";
        all.register("event_streams_refused", help, self.streams_refused.clone());
        self.jobs.register(&mut all);

        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let mut gauge = |name, help, value| all.register(name, help, ConstGauge::new(value));
        gauge("http_connections", "Connections of clients", number(self.connections));
        let help = "How many connections of clients there may be";
        gauge("http_connections_limit", help, number(self.connections_limit));
        let help = "Polls and submissions whose answers are held, and streams of events";
        gauge("waiting_polls", help, number(self.waiting_polls));
        gauge("event_streams", "Streams of events that are open", number(self.streams));
        let help = "How many streams of events there may be";
        gauge("event_streams_limit", help, number(self.streams_limit));
        gauge("broker_up", "1 while the broker takes jobs", self.broker_is_up.into());
        let help = "1 while the broker is there and takes none: its memory or disk alarm";
        gauge("broker_blocked", help, self.broker_is_blocked.into());
        gauge("database_up", "1 while PostgreSQL answers", self.database_is_up.into());
        gauge("redis_up", "1 while Redis answers", self.redis_is_up.into());
        metrics::pools(&mut all, &[("requests", self.pool)]);
        let lines = Family::ALL.map(|family| {
            let served =
                |(line, known): &&(Line, Known)| line.family == family && known.is_shared();
            let count = u32::try_from(self.lines.iter().filter(served).count());
            (FamilyLabels { family: family.as_str() }, f64::from(count.unwrap_or(u32::MAX)))
        });
        let help = "Lines that a worker should serve";
        metrics::gauge(&mut all, "lines", help, None, lines);
        line_gauges(&mut all, &self.lines);
        all
    }

    /// With one of everything, for the list in the documentation.
    #[must_use]
    pub fn example() -> Self {
        let requests = Requests::default();
        requests.answered(&Method::GET, None, StatusCode::OK, Duration::ZERO);
        let depth = Some(Depth { ready: 0, consumers: 0 });
        let mut known = Known::default();
        known.depth = depth;
        let name = LineName::Partition(0);
        let line = Line { family: Family::Coupon, generation: 1, name, naming: Naming::Family };
        Self {
            requests,
            jobs: Metrics::default(),
            connections: 0,
            connections_limit: 0,
            connections_refused: Counter::default(),
            waiting_polls: 0,
            streams: 0,
            streams_limit: 0,
            streams_refused: Counter::default(),
            broker_is_up: true,
            broker_is_blocked: false,
            database_is_up: true,
            redis_is_up: true,
            pool: Usage::default(),
            lines: vec![(line, known)],
        }
    }
}

/// Of the broker's figures, what it has never told is left out.
fn line_gauges(all: &mut Registry, lines: &[(Line, Known)]) {
    let mut gauge = |name, help, unit, value: &dyn Fn(&Known) -> Option<f64>| {
        let values = lines.iter().filter_map(|(line, known)| {
            let labels = LineLabels { family: line.family.as_str(), line: line.routing_key() };
            Some((labels, value(known)?))
        });
        metrics::gauge(all, name, help, unit, values);
    };
    let help = "Messages in the line that its consumer was not given yet";
    gauge("line_ready_messages", help, None, &|line| Some(line.depth?.ready.into()));
    let help = "Jobs of the line that were accepted and are not settled";
    #[expect(clippy::cast_precision_loss, reason = "some millions at most")]
    let waiting = |line: &Known| Some(line.waiting_jobs() as f64);
    gauge("line_waiting_jobs", help, None, &waiting);
    let help = "Consumers of the line, whether active or standing by";
    gauge("line_consumers", help, None, &|line| Some(line.depth?.consumers.into()));
    let help = "How long the job at the head has waited";
    let now = Utc::now();
    let oldest = |line: &Known| Some(line.oldest(now).as_seconds_f64());
    gauge("line_oldest_job_age", help, Some(Unit::Seconds), &oldest);
    let help = "Jobs settled per second, smoothed";
    gauge("line_settled_jobs_per_second", help, None, &|line| Some(line.rate()));
    let help = "1 while nobody serves the line, or its worker has stopped telling how it fares";
    gauge("line_stalled", help, None, &|line| Some(f64::from(u8::from(line.is_stalled()))));
    let help = "1 while an operator has halted the line's family, so that nobody serves it";
    gauge("line_halted", help, None, &|line| Some(f64::from(u8::from(line.is_halted()))));
}
