//! The counters and histograms of a worker; `monitor/metrics.rs` writes them out for Prometheus.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use chrono::{DateTime, Utc};
use firstcome_contract::{
    failure::Failure,
    family as contract,
    job::{JobKind, Settled, Status},
    rejection::Rejection,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::RoleName;

/// Upper bounds of the buckets for jobs in a batch, up to about `MAX_JOBS`: a message is never split.
const JOB_BUCKETS: [f64; 12] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0];
/// Upper bounds of the buckets for seconds: from one row to a batch that was retried for a while.
const SECOND_BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Upper bounds of the buckets for a job's wait in seconds: from an idle line to one with all of its capacity.
const WAIT_BUCKETS: [f64; 13] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// The source of dead letters of no role: the broker set them aside, and does not say in which queue.
pub(crate) const OTHER: &str = "other";
/// The roles that consume events.
const CONSUMERS: [RoleName; 2] = [RoleName::UpdateSalesStats, RoleName::SendToDataPlatform];

/// What was counted since the process started.
#[derive(Debug)]
pub struct Metrics {
    settled: Family<OutcomeLabels, Counter>,
    waits: Family<StatusLabels, Histogram, fn() -> Histogram>,
    batch_jobs: Family<FamilyLabels, Histogram, fn() -> Histogram>,
    batch_seconds: Family<FamilyLabels, Histogram, fn() -> Histogram>,
    retries: Family<FamilyLabels, Counter>,
    fenced: Family<FamilyLabels, Counter>,
    handovers: Family<FamilyLabels, Counter>,
    dead_letters: Family<SourceLabels, Counter>,
    letters: Family<SourceLabels, Gauge>,
    letters_age: Family<SourceLabels, Gauge<f64, AtomicU64>>,
    event_queues: Family<RoleLabels, Gauge>,
    /// When the first event happened of those that a role has in hand.
    in_hand: Mutex<BTreeMap<&'static str, DateTime<Utc>>>,
    /// Events in the outbox, about, when the relay last looked.
    pub(crate) outbox_events: Gauge,
    /// How many seconds the oldest of them had waited by then.
    pub(crate) outbox_age: Gauge<f64, AtomicU64>,
    /// Events that the relay published.
    pub(crate) relayed: Counter,
    routed: Family<RoleLabels, Counter>,
    /// Events in the batches that were counted into the statistics; again when they come again.
    pub(crate) counted: Counter,
    /// Events that the data platform took.
    pub(crate) delivered: Counter,
    /// Events that the data platform refused for their content.
    pub(crate) refused: Counter,
    /// Requests that the data platform did not answer, or not well.
    pub(crate) failed_deliveries: Counter,
    /// 1 while the circuit to the data platform is open, else 0.
    pub(crate) circuit_open: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    kind: &'static str,
    status: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    kind: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct FamilyLabels {
    family: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabels {
    role: &'static str,
}

impl FamilyLabels {
    pub(crate) const fn of(family: contract::Family) -> Self {
        Self { family: family.as_str() }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            settled: Family::default(),
            waits: Family::new_with_constructor(|| Histogram::new(WAIT_BUCKETS)),
            batch_jobs: Family::new_with_constructor(|| Histogram::new(JOB_BUCKETS)),
            batch_seconds: Family::new_with_constructor(|| Histogram::new(SECOND_BUCKETS)),
            retries: Family::default(),
            fenced: Family::default(),
            handovers: Family::default(),
            dead_letters: Family::default(),
            letters: Family::default(),
            letters_age: Family::default(),
            event_queues: Family::default(),
            in_hand: Mutex::default(),
            outbox_events: Gauge::default(),
            outbox_age: Gauge::default(),
            relayed: Counter::default(),
            routed: Family::default(),
            counted: Counter::default(),
            delivered: Counter::default(),
            refused: Counter::default(),
            failed_deliveries: Counter::default(),
            circuit_open: Gauge::default(),
        };
        // A rate needs a first value: a series that begins with its first event hides that one.
        for kind in JobKind::ALL.map(JobKind::as_str) {
            for (status, code) in outcomes() {
                let status = status.as_str();
                metrics.settled.get_or_create(&OutcomeLabels { kind, status, code }).inc_by(0);
                drop(metrics.waits.get_or_create(&StatusLabels { kind, status }));
            }
        }
        for labels in contract::Family::ALL.map(FamilyLabels::of) {
            drop(metrics.batch_jobs.get_or_create(&labels));
            drop(metrics.batch_seconds.get_or_create(&labels));
            for counter in [&metrics.retries, &metrics.fenced, &metrics.handovers] {
                counter.get_or_create(&labels).inc_by(0);
            }
        }
        for source in RoleName::ALL.map(RoleName::as_str) {
            metrics.dead_letters.get_or_create(&SourceLabels { source }).inc_by(0);
        }
        metrics.letters(&HashMap::new());
        for role in CONSUMERS {
            metrics.routed(role.as_str(), 0);
            metrics.event_queue(role.as_str(), 0);
        }
        metrics
    }
}

impl Metrics {
    /// Counts these outcomes, which are committed.
    pub(crate) fn settled(&self, jobs: &[Settled]) {
        for job in jobs {
            let kind = job.job_id.kind().map_or("unknown", JobKind::as_str);
            let status = job.status.as_str();
            let code = job.code.as_deref().map_or("", known_code);
            self.settled.get_or_create(&OutcomeLabels { kind, status, code }).inc();
            // Of two clocks, the API's and PostgreSQL's: what would be negative counts as nothing.
            let wait = (job.settled_at - job.job_id.submitted_at()).to_std().unwrap_or_default();
            self.waits.get_or_create(&StatusLabels { kind, status }).observe(wait.as_secs_f64());
        }
    }

    /// Observes a batch that is settled: its jobs, and how long all of its attempts took.
    pub(crate) fn batch(&self, family: contract::Family, jobs: usize, took: Duration) {
        let labels = FamilyLabels::of(family);
        #[expect(clippy::cast_precision_loss, reason = "some thousands at most")]
        self.batch_jobs.get_or_create(&labels).observe(jobs as f64);
        self.batch_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts an attempt that failed and is made again.
    pub(crate) fn retried(&self, family: contract::Family) {
        self.retries.get_or_create(&FamilyLabels::of(family)).inc();
    }

    /// Counts a batch that was abandoned, since its line is another worker's.
    pub(crate) fn fenced(&self, family: contract::Family) {
        self.fenced.get_or_create(&FamilyLabels::of(family)).inc();
    }

    /// Counts a line that was given back while the worker goes on.
    pub(crate) fn handed_over(&self, family: contract::Family) {
        self.handovers.get_or_create(&FamilyLabels::of(family)).inc();
    }

    /// Counts dead letters, by the role that set them aside.
    pub(crate) fn dead_lettered(&self, source: &'static str, count: usize) {
        let count = u64::try_from(count).unwrap_or_default();
        self.dead_letters.get_or_create(&SourceLabels { source }).inc_by(count);
    }

    /// Notes how many dead letters of which source there are, and how many seconds old the oldest is.
    pub(crate) fn letters(&self, letters: &HashMap<&'static str, (i64, f64)>) {
        for source in RoleName::ALL.map(RoleName::as_str).into_iter().chain([OTHER]) {
            let (count, age) = letters.get(source).copied().unwrap_or_default();
            let labels = SourceLabels { source };
            self.letters.get_or_create(&labels).set(count);
            self.letters_age.get_or_create(&labels).set(age.max(0.0));
        }
    }

    /// Notes how many messages wait in the queue of the role.
    pub(crate) fn event_queue(&self, role: &'static str, ready: u32) {
        self.event_queues.get_or_create(&RoleLabels { role }).set(ready.into());
    }

    /// Notes that the role has events in hand, of which the first happened then; until what comes back is dropped.
    pub(crate) fn events_in_hand(
        &self,
        role: &'static str,
        oldest: Option<DateTime<Utc>>,
    ) -> InHand<'_> {
        if let Some(oldest) = oldest {
            self.in_hand().insert(role, oldest);
        }
        InHand { role, metrics: self }
    }

    fn in_hand(&self) -> MutexGuard<'_, BTreeMap<&'static str, DateTime<Utc>>> {
        // Nothing panics while holding it.
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts events that were published, and that this role gets.
    pub(crate) fn routed(&self, role: &'static str, events: u64) {
        self.routed.get_or_create(&RoleLabels { role }).inc_by(events);
    }

    /// Registers all of them, with the names and help texts that Prometheus reads.
    pub(crate) fn register(&self, all: &mut Registry) {
        let help = "Jobs with a committed outcome; the code is empty for a success";
        all.register("jobs_settled", help, self.settled.clone());
        let help =
            "From a job's submission to its outcome; a redriven job has waited since then, too";
        all.register_with_unit("job_wait", help, Unit::Seconds, self.waits.clone());
        all.register("batch_jobs", "Jobs in a batch", self.batch_jobs.clone());
        let help = "From a batch in hand to its commit, with all attempts";
        all.register_with_unit("batch_duration", help, Unit::Seconds, self.batch_seconds.clone());
        let help = "Attempts at a batch that failed and were made again: the database";
        all.register("batch_retries", help, self.retries.clone());
        let help = "Batches abandoned because their line was another worker's by then";
        all.register("batches_fenced", help, self.fenced.clone());
        let help = "Lines given to another worker while this one goes on";
        all.register("line_handovers", help, self.handovers.clone());
        let help = "Jobs and events set aside, by the role that did";
        all.register("dead_letters", help, self.dead_letters.clone());

        let help = "Dead letters that wait for an operator, of the 1000 oldest, by the role whose they are; 0 from roles other than relay-outbox";
        all.register("dead_letters_waiting", help, self.letters.clone());
        let help = "How long the oldest of them has waited";
        let age = self.letters_age.clone();
        all.register_with_unit("dead_letters_oldest_age", help, Unit::Seconds, age);

        let help =
            "Events that wait in the outbox, about, as the relay sees it; 0 from other roles";
        all.register("outbox_waiting_events", help, self.outbox_events.clone());
        let help = "How long the oldest of them has waited";
        let age = self.outbox_age.clone();
        all.register_with_unit("outbox_oldest_event_age", help, Unit::Seconds, age);
        let help = "Events that were published";
        all.register("outbox_events_relayed", help, self.relayed.clone());
        let help = "Events that were published, by the role that gets them; some are of none";
        all.register("outbox_events_routed", help, self.routed.clone());
        let help = "Messages, of up to 128 events each, that wait in the queue of a role; 0 from roles other than relay-outbox";
        all.register("event_queue_depth", help, self.event_queues.clone());
        let help = "How long ago the first event happened of those that the role has in hand; 0 without any";
        let ages = Family::<RoleLabels, Gauge<f64, AtomicU64>>::default();
        for role in CONSUMERS.map(RoleName::as_str) {
            let oldest = self.in_hand().get(role).map(|oldest| Utc::now() - oldest);
            let age = oldest.and_then(|age| age.to_std().ok()).unwrap_or_default();
            ages.get_or_create(&RoleLabels { role }).set(age.as_secs_f64());
        }
        all.register_with_unit("event_age", help, Unit::Seconds, ages);
        let help = "Events given to the sales statistics; an event that comes twice counts twice here, never there";
        all.register("sales_events_counted", help, self.counted.clone());
        let help = "Events that the data platform took";
        all.register("data_platform_events_delivered", help, self.delivered.clone());
        let help = "Events that the data platform refused for their content";
        all.register("data_platform_events_refused", help, self.refused.clone());
        let help = "Requests that the data platform did not answer, or not well";
        all.register("data_platform_failures", help, self.failed_deliveries.clone());
        let help =
            "1 while the circuit to the data platform is open: only a probe goes out now and then";
        all.register("data_platform_circuit_open", help, self.circuit_open.clone());
    }
}

/// Events that a role has in hand.
#[derive(Debug)]
pub(crate) struct InHand<'a> {
    role: &'static str,
    metrics: &'a Metrics,
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.metrics.in_hand().remove(self.role);
    }
}

/// Every way in which a worker ends a job, with its code.
fn outcomes() -> impl Iterator<Item = (Status, &'static str)> {
    let rejected = Rejection::ALL.map(|rejection| (Status::Rejected, rejection.code()));
    // Lost jobs are in no worker's hand: the API counts them.
    let failed = Failure::ALL.into_iter().filter(|failure| *failure != Failure::Lost);
    let failed = failed.map(|failure| (Status::Failed, failure.code()));
    std::iter::once((Status::Succeeded, "")).chain(rejected).chain(failed)
}

/// The code as one of those that there are: whatever else would be a series of its own.
fn known_code(code: &str) -> &'static str {
    outcomes().map(|(_, known)| known).find(|known| *known == code).unwrap_or("other")
}
