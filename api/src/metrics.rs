//! Jobs, as they are counted: accepted, refused, lost. The endpoint that tells of them is
//! `health/metrics.rs`.

use firstcome_contract::{job::JobKind, rejection::Rejection};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::http::problem::Code;

/// Why a valid request gets no job, but for what is known early of how the job would end.
const REFUSALS: [Code; 4] =
    [Code::LineFull, Code::BrokerUnavailable, Code::DatabaseUnavailable, Code::InternalError];

/// What became of requests for jobs since the process started; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    accepted: Family<KindLabels, Counter>,
    refused: Family<RefusalLabels, Counter>,
    lost: Family<KindLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct KindLabels {
    pub(crate) kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    kind: &'static str,
    reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            accepted: Family::default(),
            refused: Family::default(),
            lost: Family::default(),
        };
        // A rate needs a first value: a series that begins with its first event hides that one.
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
    /// Counts a job that the broker has confirmed.
    pub fn accepted(&self, kind: JobKind) {
        self.accepted.get_or_create(&KindLabels { kind: kind.as_str() }).inc();
    }

    /// Counts a valid request that got no job, by the code of its answer.
    pub fn refused(&self, kind: JobKind, code: Code) {
        let labels = RefusalLabels { kind: kind.as_str(), reason: code.name() };
        self.refused.get_or_create(&labels).inc();
    }

    /// Counts a job that was found to be lost.
    pub fn lost(&self, kind: JobKind) {
        self.lost.get_or_create(&KindLabels { kind: kind.as_str() }).inc();
    }

    /// Adds the counters to what a scrape reads.
    pub(crate) fn register(&self, all: &mut Registry) {
        let help = "Jobs that the broker has, answered with 202";
        all.register("jobs_accepted", help, self.accepted.clone());
        let help = "Valid requests for a job that were refused, by the problem's code";
        all.register("jobs_refused", help, self.refused.clone());
        let help =
            "Jobs that PostgreSQL or the broker has lost, found when somebody asked for them";
        all.register("jobs_lost", help, self.lost.clone());
    }
}
