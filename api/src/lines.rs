//! What the API knows of the lines: how jobs are dealt out, how long each line is, how fast it moves.
//!
//! All of it is a second old and none of it is needed for correctness: a job that is published
//! by an outdated routing comes back from the broker, which takes messages for current lines only.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use firstcome_shared::{
    broker::{
        BrokerArgs,
        connect::{self, Connection, SessionError},
        depth::{Depth, Gauge},
    },
    job::{Job, JobId, JobKind},
    partition::{Line, Partition, Place, Routing},
};
use serde_json::Value;
use sqlx::PgPool;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// How often the database and the broker are asked.
const LOOK: Duration = Duration::from_secs(1);
/// How long either may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// A report that is older than this is its line's past.
const FRESH: TimeDelta = TimeDelta::seconds(5);
/// What a consumer is given ahead: with messages left in the queue, all of it is used.
const PREFETCH: u64 = 256;
/// Looks that are remembered per line.
const ARRIVALS: usize = 600;
/// The longest that a client is asked to wait, in seconds.
const LONGEST_WAIT: f64 = 60.0;

/// Routings by kind; a kind is missing until one of its workers has made its lines.
pub type Routes = BTreeMap<JobKind, Routing>;

/// The lines.
#[derive(Debug)]
pub struct Lines {
    routes: watch::Sender<Arc<Routes>>,
    known: Mutex<HashMap<Partition, Known>>,
    refresh: Notify,
    capacity: u64,
}

/// A line as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Consumed from.
    pub is_open: bool,
    /// Takes no new jobs any more.
    pub is_closed: bool,
    /// The worker that serves it.
    pub owner: Option<String>,
    /// How it fares, as its owner said last.
    pub report: Option<Report>,
    /// What the broker said last; `None` if it did not.
    pub depth: Option<Depth>,
    /// Since when the broker has seen messages in it.
    pub waiting_since: Option<DateTime<Utc>>,
    /// Jobs put into it since the broker was asked.
    accepted_since: u32,
    /// Jobs per message that this process put into it, smoothed.
    parcel: Option<f64>,
    /// How many jobs had ever come, by when.
    arrivals: VecDeque<(DateTime<Utc>, u64)>,
}

/// How a line fares, as its owner sees it.
#[derive(Debug, Clone)]
pub struct Report {
    /// Messages in its hands.
    pub in_hand: i32,
    /// Jobs settled since the line was opened.
    pub settled: i64,
    /// Jobs settled per second.
    pub settled_per_second: f64,
    /// Jobs per message.
    pub jobs_per_message: f64,
    /// When the job that it took up last was submitted: who waits came later.
    pub head_at: Option<DateTime<Utc>>,
    /// When it last settled something or saw its canary.
    pub progress_at: DateTime<Utc>,
    /// The busiest keys.
    pub hottest: Value,
    /// When it said so.
    pub reported_at: DateTime<Utc>,
}

/// A job's place in its line: an estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// 1 is next.
    pub position: u64,
    /// Until it is settled; unknown while the line does not move.
    pub seconds: Option<u64>,
}

impl Known {
    /// Messages that its consumer holds.
    #[must_use]
    pub fn unacked(&self) -> u64 {
        let in_hand = self.fresh_report().map_or(0, |report| report.in_hand.unsigned_abs().into());
        match self.depth {
            Some(Depth { ready: 1.., consumers: 1.. }) => PREFETCH,
            _ => in_hand,
        }
    }

    /// Jobs that wait, about.
    #[must_use]
    pub fn waiting_jobs(&self) -> u64 {
        let messages = u64::from(self.depth.map_or(0, |depth| depth.ready)) + self.unacked();
        let reported = self.report.as_ref().map(|report| report.jobs_per_message);
        let jobs_per_message = self.parcel.or(reported).unwrap_or(1.0);
        #[expect(clippy::cast_precision_loss, reason = "some millions at most")]
        let before = whole(messages as f64 * jobs_per_message);
        before + u64::from(self.accepted_since)
    }

    /// Jobs settled per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.fresh_report().map_or(0.0, |report| report.settled_per_second)
    }

    /// How long the job at the head has waited.
    #[must_use]
    pub fn oldest(&self, now: DateTime<Utc>) -> TimeDelta {
        if self.waiting_jobs() == 0 {
            return TimeDelta::zero();
        }
        let head_at = self.report.as_ref().and_then(|report| report.head_at);
        let since = head_at.max(self.waiting_since).unwrap_or(now);
        (now - since).max(TimeDelta::zero())
    }

    fn fresh_report(&self) -> Option<&Report> {
        self.report.as_ref().filter(|report| Utc::now() - report.reported_at < FRESH)
    }

    fn settled(&self) -> u64 {
        self.report.as_ref().map_or(0, |report| report.settled.unsigned_abs())
    }

    /// Those that had come by its submission, without those that are settled.
    fn position(&self, submitted_at: DateTime<Utc>) -> Position {
        let waiting = self.waiting_jobs().max(1);
        let before = self.arrived_by(submitted_at).map(|came| came.saturating_sub(self.settled()));
        let position = before.unwrap_or(waiting).clamp(1, waiting);
        #[expect(clippy::cast_precision_loss, reason = "some millions at most")]
        let seconds = (self.rate() >= 0.1).then(|| whole((position as f64 / self.rate()).ceil()));
        Position { position, seconds }
    }

    /// How many jobs had ever come by then, as if they had come evenly between two looks; `None` for
    /// later than the last one.
    fn arrived_by(&self, then: DateTime<Utc>) -> Option<u64> {
        let next = self.arrivals.partition_point(|(at, _)| *at <= then);
        let (after, came_after) = *self.arrivals.get(next)?;
        let last = next.checked_sub(1).and_then(|last| self.arrivals.get(last));
        // Before this process began to look: no later than what it saw first.
        let Some((before, came_before)) = last.copied() else { return Some(came_after) };
        let share = (then - before).as_seconds_f64() / (after - before).as_seconds_f64();
        #[expect(clippy::cast_precision_loss, reason = "some millions at most")]
        let between = (came_after - came_before) as f64 * share;
        Some(came_before + whole(between))
    }

    /// Remembers how many have come so far.
    fn note_arrivals(&mut self, now: DateTime<Utc>) {
        let came = self.settled() + self.waiting_jobs();
        // The two are not looked at in the same instant; nobody who came goes away.
        let came = came.max(self.arrivals.back().map_or(0, |(_, before)| *before));
        if self.arrivals.len() >= ARRIVALS {
            // Half as many tell of twice as long.
            let mut is_kept = false;
            self.arrivals.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        self.arrivals.push_back((now, came));
    }
}

impl Lines {
    /// Starts looking, until `stop`. A line takes at most about `capacity` jobs.
    #[must_use]
    pub fn start(
        pool: &PgPool,
        broker: &BrokerArgs,
        capacity: u32,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let lines = Arc::new(Self {
            routes: watch::Sender::new(Arc::default()),
            known: Mutex::default(),
            refresh: Notify::new(),
            capacity: capacity.into(),
        });
        let reading = read(Arc::clone(&lines), pool.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(reading));
        tokio::spawn(watch_depths(Arc::clone(&lines), broker.clone(), stop.clone()));
        lines
    }

    /// The routing, now and as it changes.
    #[must_use]
    pub fn routes(&self) -> watch::Receiver<Arc<Routes>> {
        self.routes.subscribe()
    }

    /// Whether every kind of job has its lines.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.routes.borrow().len() == JobKind::ALL.len()
    }

    /// Asks the database at once: the routing proved outdated.
    pub fn refresh(&self) {
        self.refresh.notify_one();
    }

    /// The line that the job must stand in; `None` until that is known.
    #[must_use]
    pub fn of(&self, job: &Job) -> Option<Partition> {
        partition(&self.routes.borrow(), job)
    }

    /// What the id of a job with these keys says about its line.
    #[must_use]
    pub fn place(&self, kind: JobKind, keys: impl Iterator<Item = i64> + Clone) -> Place {
        self.routes.borrow().get(&kind).map_or(Place::UNKNOWN, |routing| routing.place(keys))
    }

    /// Whether the line takes another job; if not, when to come back.
    ///
    /// # Errors
    /// Seconds until a tenth of the line should be free.
    pub fn admit(&self, line: Partition) -> Result<(), u64> {
        let known = self.known();
        let Some(line) = known.get(&line) else { return Ok(()) };
        let waiting = line.waiting_jobs();
        if waiting < self.capacity { Ok(()) } else { Err(self.drain_seconds(line, waiting)) }
    }

    /// When to come back to a line that the broker says is full.
    #[must_use]
    pub fn retry_after(&self, line: Partition) -> u64 {
        let known = self.known();
        known.get(&line).map_or(2, |line| self.drain_seconds(line, line.waiting_jobs()))
    }

    fn drain_seconds(&self, line: &Known, waiting: u64) -> u64 {
        let excess = waiting.saturating_sub(self.capacity / 10 * 9).max(waiting / 10);
        #[expect(clippy::cast_precision_loss, reason = "some millions at most")]
        let excess = excess as f64;
        let seconds = if line.rate() >= 0.1 { excess / line.rate() } else { 5.0 };
        whole(seconds.ceil().clamp(1.0, LONGEST_WAIT))
    }

    /// Notes that a message with so many jobs went into the line.
    pub fn accepted(&self, line: Partition, jobs: usize) {
        let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
        let mut known = self.known();
        let line = known.entry(line).or_default();
        line.accepted_since = line.accepted_since.saturating_add(jobs);
        let parcel = line.parcel.get_or_insert_with(|| f64::from(jobs));
        *parcel += (f64::from(jobs) - *parcel) / 8.0;
    }

    /// Where a queued job stands, as far as can be told.
    #[must_use]
    pub fn position(&self, id: JobId) -> Option<Position> {
        let kind = id.kind()?;
        let routes = self.routes.borrow();
        let routing = routes.get(&kind)?;
        let line = routing.line_at(id.place())?;
        let line = Partition { kind, generation: routing.generation, line };
        self.known().get(&line).map(|line| line.position(id.submitted_at()))
    }

    /// Every line, as known at present.
    #[must_use]
    pub fn all(&self) -> Vec<(Partition, Known)> {
        let known = self.known();
        let mut all: Vec<_> = known.iter().map(|(line, known)| (*line, known.clone())).collect();
        all.sort_by_key(|(line, _)| *line);
        all
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Partition, Known>> {
        // Nothing panics while holding it; if it did, what is known is still known.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The line of a job by this routing.
#[must_use]
pub fn partition(routes: &Routes, job: &Job) -> Option<Partition> {
    let kind = job.kind();
    let routing = routes.get(&kind)?;
    Some(Partition { kind, generation: routing.generation, line: routing.line(job.keys()) })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts of floats saturate"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

async fn read(lines: Arc<Lines>, pool: PgPool) {
    loop {
        match timeout(PATIENCE, look(&pool)).await {
            Ok(Ok((routes, rows))) => {
                let mut known = lines.known();
                known.retain(|line, _| rows.contains_key(line));
                for (partition, (is_open, is_closed, owner, report)) in rows {
                    let line = known.entry(partition).or_default();
                    *line = Known { is_open, is_closed, owner, report, ..std::mem::take(line) };
                }
                drop(known);
                lines.routes.send_if_modified(|current| {
                    let changed = **current != routes;
                    if changed {
                        *current = Arc::new(routes);
                    }
                    changed
                });
            }
            Ok(Err(error)) => tracing::debug!(%error, "lines not read"),
            Err(_) => tracing::debug!("lines not read in time"),
        }
        let asked = lines.refresh.notified();
        if timeout(LOOK, asked).await.is_ok() {
            // Several may ask in a row while a change is under way.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

type Rows = HashMap<Partition, (bool, bool, Option<String>, Option<Report>)>;

async fn look(pool: &PgPool) -> Result<(Routes, Rows), sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT l.kind, l.generation, l.line, l.partitions, routing.generation AS current,
                  (l.opened_at IS NOT NULL) AS "is_open!", (l.closed_at IS NOT NULL) AS "is_closed!",
                  (SELECT number FROM pins WHERE pins.kind = l.kind AND 'pin-' || pins.key = l.line) AS pin_number,
                  workers.name AS "owner?",
                  r.in_hand AS "in_hand?", r.settled AS "settled?", r.settled_per_second AS "settled_per_second?",
                  r.jobs_per_message AS "jobs_per_message?", r.head_at, r.progress_at AS "progress_at?",
                  r.hottest AS "hottest?", r.reported_at AS "reported_at?"
           FROM partition_leases AS l
           JOIN routing ON routing.kind = l.kind AND l.generation <= routing.generation
           LEFT JOIN workers ON workers.id = l.owner AND workers.expires_at > clock_timestamp()
           LEFT JOIN line_reports AS r ON r.kind = l.kind AND r.generation = l.generation AND r.line = l.line"#
    )
    .fetch_all(pool)
    .await?;
    let mut routes = Routes::new();
    let mut lines = Rows::new();
    for row in rows {
        let kind = JobKind::from_name(&row.kind);
        let (Some(kind), Ok(line)) = (kind, row.line.parse::<Line>()) else { continue };
        if row.generation == row.current {
            let routing = routes.entry(kind).or_insert_with(|| Routing {
                generation: row.generation,
                partitions: u16::try_from(row.partitions).unwrap_or(u16::MAX),
                pins: BTreeMap::new(),
            });
            if let Line::Pin(key) = line {
                // A pin that is being removed has no number any more, but its line until then.
                let number = row.pin_number.and_then(|number| u8::try_from(number).ok());
                routing.pins.insert(key, number.unwrap_or(u8::MAX));
            }
        }
        let report = match (row.in_hand, row.settled_per_second, row.jobs_per_message) {
            (Some(in_hand), Some(settled_per_second), Some(jobs_per_message)) => Some(Report {
                in_hand,
                settled: row.settled.unwrap_or_default(),
                settled_per_second,
                jobs_per_message,
                head_at: row.head_at,
                progress_at: row.progress_at.unwrap_or_default(),
                hottest: row.hottest.unwrap_or_default(),
                reported_at: row.reported_at.unwrap_or_default(),
            }),
            _ => None,
        };
        let partition = Partition { kind, generation: row.generation, line };
        lines.insert(partition, (row.is_open, row.is_closed, row.owner, report));
    }
    Ok((routes, lines))
}

/// Asks the broker how long the lines are, on a connection of its own.
async fn watch_depths(lines: Arc<Lines>, broker: BrokerArgs, stop: CancellationToken) {
    let namespace: Arc<str> = broker.queue_namespace.into();
    connect::supervise(&broker.amqp_url, "firstcome-api monitor", &stop, |connection| {
        let (lines, namespace, stop) = (Arc::clone(&lines), Arc::clone(&namespace), stop.clone());
        async move {
            let ended = stop.run_until_cancelled(gauge(&lines, connection, &namespace)).await;
            for line in lines.known().values_mut() {
                line.depth = None;
            }
            ended.unwrap_or(Ok(()))
        }
    })
    .await;
}

async fn gauge(
    lines: &Lines,
    connection: Arc<Connection>,
    namespace: &str,
) -> Result<(), SessionError> {
    let mut gauge = Gauge::open(connection).await?;
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let started = Instant::now();
        let partitions: Vec<Partition> = lines.known().keys().copied().collect();
        for partition in partitions {
            let depth = timeout(PATIENCE, gauge.depth(&partition.queue(namespace))).await;
            let depth = depth.map_err(|_| SessionError::Timeout(PATIENCE))??;
            let mut known = lines.known();
            let Some(line) = known.get_mut(&partition) else { continue };
            line.depth = depth;
            line.accepted_since = 0;
            line.note_arrivals(Utc::now());
            let waits = depth.is_some_and(|depth| depth.ready > 0);
            line.waiting_since = line.waiting_since.or_else(|| Some(Utc::now())).filter(|_| waits);
        }
        tracing::trace!(took = ?started.elapsed(), "looked at the lines");
    }
}
