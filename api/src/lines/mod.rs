//! What the API knows of the lines: how jobs are dealt out, how long each line is, how fast it moves.
//!
//! All of it is a second old and none of it is needed for correctness: a job that is published
//! by an outdated routing comes back from the broker, which takes messages for current lines only.

mod known;

pub use known::{Known, Position, Report};

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::Utc;
use firstcome_shared::{
    broker::{
        BrokerArgs,
        connect::{self, Connection, SessionError},
        depth::Gauge,
    },
    job::{Job, JobId, JobKind},
    partition::{Line, Partition, Place, Routing},
};
use sqlx::PgPool;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use known::whole;

/// How often the database and the broker are asked.
const LOOK: Duration = Duration::from_secs(1);
/// How long either may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
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
    database_is_up: AtomicBool,
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
            database_is_up: AtomicBool::new(false),
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

    /// Whether PostgreSQL answered when it was last asked.
    #[must_use]
    pub fn database_is_up(&self) -> bool {
        self.database_is_up.load(Ordering::Relaxed)
    }

    /// How many lines there are of each kind.
    #[must_use]
    pub fn counts(&self) -> [(JobKind, usize); JobKind::ALL.len()] {
        let routes = self.routes.borrow();
        JobKind::ALL
            .map(|kind| (kind, routes.get(&kind).map_or(0, |routing| routing.lines().count())))
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
        // Where the broker does not tell, its own bound holds.
        let told = known.get(&line).filter(|line| line.depth.is_some());
        let Some(line) = told else { return Ok(()) };
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
        self.known().entry(line).or_default().note_accepted(jobs, Utc::now());
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

async fn read(lines: Arc<Lines>, pool: PgPool) {
    loop {
        let looked = timeout(PATIENCE, look(&pool)).await;
        lines.database_is_up.store(matches!(looked, Ok(Ok(_))), Ordering::Relaxed);
        match looked {
            Ok(Ok((routes, rows))) => {
                let mut known = lines.known();
                known.retain(|line, _| rows.contains_key(line));
                for (partition, row) in rows {
                    let line = known.entry(partition).or_default();
                    (line.is_open, line.is_closed, line.owner, line.report) = row;
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
            line.note_depth(depth, Utc::now());
        }
        tracing::trace!(took = ?started.elapsed(), "looked at the lines");
    }
}
