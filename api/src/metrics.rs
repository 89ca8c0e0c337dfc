//! `GET /metrics`, and what is counted for it.

use std::{
    hash::{Hash, Hasher},
    time::Duration,
};

use axum::{
    extract::{MatchedPath, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::Utc;
use firstcome_contract::{
    family as contract,
    job::JobKind,
    line::{Line, LineName, Naming},
    rejection::Rejection,
};
use firstcome_process::metrics::{self, LineLabels};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{
    http::problem::{Code, Problem},
    lines::Known,
    state::AppState,
};

/// From a cached answer to the longest wait of a poll.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Why a valid request gets no job, but for what is known early of how the job would end.
const REFUSALS: [Code; 4] =
    [Code::LineFull, Code::BrokerUnavailable, Code::DatabaseUnavailable, Code::InternalError];

/// What was counted since the process started; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    accepted: Family<KindLabels, Counter>,
    refused: Family<RefusalLabels, Counter>,
    lost: Family<KindLabels, Counter>,
}

/// What is true at the moment of a scrape.
#[derive(Debug)]
pub struct Snapshot {
    /// Connections of clients.
    pub connections: usize,
    /// How many of them there may be.
    pub connections_limit: usize,
    /// How many were refused.
    pub connections_refused: Counter,
    /// Polls whose answers are held.
    pub waiting_polls: usize,
    /// The broker takes jobs.
    pub broker_is_up: bool,
    /// The broker is there and takes none (memory or disk alarm).
    pub broker_is_blocked: bool,
    /// PostgreSQL answers.
    pub database_is_up: bool,
    /// The lines.
    pub lines: Vec<(Line, Known)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: Route,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: Route,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FamilyLabels {
    family: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    kind: &'static str,
    reason: &'static str,
}

/// A path with names in the place of values, as the router shares it: a request's own path would be
/// a series of its own, and a string to allocate.
#[derive(Debug, Clone)]
struct Route(Option<MatchedPath>);

impl Route {
    fn as_str(&self) -> &str {
        self.0.as_ref().map_or("unmatched", MatchedPath::as_str)
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Route {}

impl Hash for Route {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            accepted: Family::default(),
            refused: Family::default(),
            lost: Family::default(),
        };
        // A rate needs a first value: a series that begins with its first event hides that one.
        // Requests have too many routes and answers for it.
        for kind in JobKind::ALL.map(JobKind::as_str) {
            metrics.accepted.get_or_create(&KindLabels { kind }).inc_by(0);
            metrics.lost.get_or_create(&KindLabels { kind }).inc_by(0);
            let early = Rejection::ALL.map(Rejection::code);
            for reason in REFUSALS.map(Code::name).into_iter().chain(early) {
                metrics.refused.get_or_create(&RefusalLabels { kind, reason }).inc_by(0);
            }
        }
        metrics
    }
}

impl Metrics {
    /// The broker has a job.
    pub fn accepted(&self, kind: JobKind) {
        self.accepted.get_or_create(&KindLabels { kind: kind.as_str() }).inc();
    }

    /// A valid request got no job.
    pub fn refused(&self, kind: JobKind, problem: &Problem) {
        let labels = RefusalLabels { kind: kind.as_str(), reason: problem.code() };
        self.refused.get_or_create(&labels).inc();
    }

    /// A job was found to be lost.
    pub fn lost(&self, kind: JobKind) {
        self.lost.get_or_create(&KindLabels { kind: kind.as_str() }).inc();
    }

    /// Counts an answer.
    pub(crate) fn answered(
        &self,
        method: &Method,
        route: Option<MatchedPath>,
        status: StatusCode,
        took: Duration,
    ) {
        let method = match *method {
            Method::GET => "GET",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            Method::HEAD => "HEAD",
            Method::OPTIONS => "OPTIONS",
            // Clients may invent more.
            _ => "other",
        };
        let route = Route(route);
        self.durations
            .get_or_create(&RouteLabels { route: route.clone() })
            .observe(took.as_secs_f64());
        let labels = RequestLabels { method, route, status: status.as_u16() };
        self.requests.get_or_create(&labels).inc();
    }

    /// All of it.
    #[must_use]
    pub fn registry(&self, now: &Snapshot) -> Registry {
        let mut all = metrics::registry();
        all.register("http_requests", "Requests that were answered", self.requests.clone());
        all.register_with_unit(
            "http_request_duration",
            "From a request's head to its answer's; a poll that waits takes as long as it was asked to",
            Unit::Seconds,
            self.durations.clone(),
        );
        let help = "Clients that came when there were as many connections as there may be";
        all.register("http_connections_refused", help, now.connections_refused.clone());
        let help = "Jobs that the broker has, answered with 202";
        all.register("jobs_accepted", help, self.accepted.clone());
        let help = "Valid requests for a job that were refused, by the problem's code";
        all.register("jobs_refused", help, self.refused.clone());
        let help =
            "Jobs that PostgreSQL or the broker has lost, found when somebody asked for them";
        all.register("jobs_lost", help, self.lost.clone());

        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let mut gauge = |name, help, value| all.register(name, help, ConstGauge::new(value));
        gauge("http_connections", "Connections of clients", number(now.connections));
        let help = "How many connections of clients there may be";
        gauge("http_connections_limit", help, number(now.connections_limit));
        gauge("waiting_polls", "Polls whose answers are held", number(now.waiting_polls));
        gauge("broker_up", "1 while the broker takes jobs", now.broker_is_up.into());
        let help = "1 while the broker is there and takes none: its memory or disk alarm";
        gauge("broker_blocked", help, now.broker_is_blocked.into());
        gauge("database_up", "1 while PostgreSQL answers", now.database_is_up.into());
        let lines = contract::Family::ALL.map(|family| {
            let served =
                |(line, known): &&(Line, Known)| line.family == family && known.is_served();
            let count = u32::try_from(now.lines.iter().filter(served).count());
            (FamilyLabels { family: family.as_str() }, f64::from(count.unwrap_or(u32::MAX)))
        });
        let help = "Lines that a worker should serve";
        metrics::gauge(&mut all, "lines", help, None, lines);
        line_gauges(&mut all, &now.lines);
        all
    }

    /// With one of everything, for the list in the documentation.
    #[must_use]
    pub fn example() -> Registry {
        let metrics = Self::default();
        metrics.answered(&Method::GET, None, StatusCode::OK, Duration::ZERO);
        let depth = firstcome_broker::depth::Depth { ready: 0, consumers: 0 };
        let mut line = Known::default();
        line.depth = Some(depth);
        metrics.registry(&Snapshot {
            connections: 0,
            connections_limit: 0,
            connections_refused: Counter::default(),
            waiting_polls: 0,
            broker_is_up: true,
            broker_is_blocked: false,
            database_is_up: true,
            lines: vec![(
                Line {
                    family: contract::Family::Coupon,
                    generation: 1,
                    name: LineName::Partition(0),
                    naming: Naming::Family,
                },
                line,
            )],
        })
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
}

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
pub async fn get(State(state): State<AppState>) -> Result<Response, Problem> {
    let registry = state.metrics.registry(&Snapshot {
        connections: state.connections.open(),
        connections_limit: state.connections.limit(),
        connections_refused: state.connections.refused().clone(),
        waiting_polls: state.jobs.waiting(),
        broker_is_up: state.enqueuer.is_up(),
        broker_is_blocked: state.enqueuer.is_blocked(),
        database_is_up: state.lines.database_is_up(),
        lines: state.lines.all(),
    });
    let text = metrics::text(&registry).map_err(|error| {
        tracing::error!(%error, "the metrics cannot be written");
        Problem::new(Code::InternalError)
    })?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
