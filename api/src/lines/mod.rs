//! What the API knows of the lines: how jobs are dealt out, how long each line is, how fast it moves.
//!
//! All of it is a second old and none of it is needed for correctness: a job that is published
//! by an outdated routing comes back from the broker, which takes messages for current lines only.

mod arrivals;
mod depths;
mod history;
mod known;
mod position;
mod recall;
mod share;
mod store;

pub use history::{Figures, Sample};
pub(crate) use known::whole;
pub use known::{Known, Report};
pub use position::{Position, seconds_to_wait};

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use firstcome_broker::BrokerArgs;
use firstcome_contract::{
    family::Family,
    job::{Job, JobId},
    line::{Line, Place, Routing},
    lost::{self, MARGIN, Progress},
};
use firstcome_process::database::{Pool, within};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::cache::Cache;
use arrivals::{Arrivals, Bucket};
use history::History;
use known::Row;
use recall::Memory;
use share::Share;
use store::Telling;

/// How often the database and the broker are asked: what is told is at most a second old.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long the database or the broker may take to answer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// What was told longer ago than this is not the present any more: several looks.
const LOOK_TTL: Duration = Duration::from_secs(3);
/// The longest that a client is asked to wait, in seconds.
const LONGEST_WAIT: f64 = 60.0;

/// Routings by family; one is missing until a worker has made its lines.
pub type Routes = BTreeMap<Family, Routing>;

/// The lines of all kinds, as they were told of last.
#[derive(Debug)]
pub struct Lines {
    routes: watch::Sender<Arc<Routes>>,
    known: Mutex<HashMap<Line, Known>>,
    history: Mutex<History>,
    /// When the database last told of the lines.
    read: Mutex<Option<Instant>>,
    /// Why the database cannot tell of them until an operator changes something.
    schema_fault: Mutex<Option<String>>,
    /// Which database told of them: another one may know less.
    source: Mutex<Option<Source>>,
    /// Notices when the database may have gone back to an earlier moment.
    rewound: watch::Sender<()>,
    refresh: Notify,
    capacity: u64,
}

impl Lines {
    /// Starts looking, until `stop`: when nothing more is accepted. A line takes at most about `capacity`
    /// jobs.
    #[must_use]
    pub fn start(
        pool: &Pool,
        cache: Cache,
        broker: &BrokerArgs,
        capacity: u32,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Arc<Self> {
        let lines = Arc::new(Self {
            routes: watch::Sender::new(Arc::default()),
            known: Mutex::default(),
            history: Mutex::default(),
            read: Mutex::default(),
            schema_fault: Mutex::default(),
            source: Mutex::default(),
            rewound: watch::Sender::new(()),
            refresh: Notify::new(),
            capacity: capacity.into(),
        });
        let share = Share::new(cache.clone(), broker);
        let memory = Memory::new(cache, &broker.queue_namespace);
        tasks.spawn(read(Arc::clone(&lines), pool.clone(), memory, stop.clone()));
        tokio::spawn(depths::watch(Arc::clone(&lines), broker.clone(), share, stop.clone()));
        tokio::spawn(stop.clone().run_until_cancelled_owned(history::keep(Arc::clone(&lines))));
        lines
    }

    /// The routing of each family; the receiver is told of every change.
    #[must_use]
    pub fn routes(&self) -> watch::Receiver<Arc<Routes>> {
        self.routes.subscribe()
    }

    /// Changes when the database may have gone back to an earlier moment: what it said before is not to be
    /// believed any more.
    #[must_use]
    pub fn rewound(&self) -> watch::Receiver<()> {
        self.rewound.subscribe()
    }

    /// Whether every family has its lines, in the broker too, unless the database has not told which to ask for.
    #[must_use]
    pub fn are_there(&self) -> bool {
        let has_queues = |family| {
            let queues = self.queues(family);
            queues.is_empty() || queues.contains(&Some(true))
        };
        Family::ALL.iter().all(|family| self.has_lines(*family) && has_queues(*family))
    }

    /// What is wrong with the set-up, each with a hint.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let schema = lock(&self.schema_fault).clone();
        let families = Family::ALL.iter().filter_map(|family| {
            let name = family.as_str();
            if self.has_lines(*family) {
                self.lacks_queues(*family).then(|| {
                    format!("the broker has none of the {name} lines' queues: QUEUE_NAMESPACE and AMQP_URL have to be those of the workers")
                })
            } else {
                let is_told = self.database_is_up() && schema.is_none();
                is_told.then(|| format!("there are no {name} lines: the first worker makes them"))
            }
        });
        schema.clone().into_iter().chain(families).collect()
    }

    /// The families that an operator has halted.
    #[must_use]
    pub fn halted(&self) -> Vec<Family> {
        let known = self.known();
        let is_halted = |family: &Family| {
            known.iter().any(|(line, known)| line.family == *family && known.is_halted())
        };
        Family::ALL.into_iter().filter(is_halted).collect()
    }

    fn has_lines(&self, family: Family) -> bool {
        self.routes.borrow().contains_key(&family)
    }

    /// Whether the broker says that there is none of these lines' queues.
    fn lacks_queues(&self, family: Family) -> bool {
        let queues = self.queues(family);
        !queues.is_empty() && queues.iter().all(|is_there| *is_there == Some(false))
    }

    /// Of each of these lines, whether the broker has its queue, as far as that is known.
    fn queues(&self, family: Family) -> Vec<Option<bool>> {
        let known = self.known();
        let lines = known.iter().filter(|(line, _)| line.family == family);
        lines.map(|(_, known)| known.is_there).collect()
    }

    /// Asks the database at once: the routing proved outdated.
    pub fn refresh(&self) {
        self.refresh.notify_one();
    }

    /// Deals a job out: what its id says of its place, and the line that it must stand in, as far as that is
    /// known.
    #[must_use]
    pub fn deal(&self, job: &Job) -> (Place, Option<Line>) {
        let routes = self.routes.borrow();
        let place = routes.get(&job.kind().family()).map(|routing| routing.place(job.keys()));
        (place.unwrap_or(Place::UNKNOWN), line_of(&routes, job))
    }

    /// Whether the line takes another job; if not, when to come back.
    ///
    /// # Errors
    /// Seconds until a tenth of the line should be free.
    pub fn admit(&self, line: Line) -> Result<(), u64> {
        let known = self.known();
        // Where the broker does not tell, its own bound holds.
        let told = known.get(&line).filter(|line| line.depth.is_some());
        let Some(line) = told else { return Ok(()) };
        if line.waiting_jobs() < self.capacity { Ok(()) } else { Err(self.drain_seconds(line)) }
    }

    /// When to come back to a line whose queue has refused a message; `None` if it has room: a queue refuses as well
    /// when its broker cannot write.
    #[must_use]
    pub fn retry_after(&self, line: Line) -> Option<u64> {
        let known = self.known();
        let Some(line) = known.get(&line) else { return Some(2) };
        line.may_be_full().then(|| self.drain_seconds(line))
    }

    fn drain_seconds(&self, line: &Known) -> u64 {
        let waiting = line.waiting_jobs();
        let excess = waiting.saturating_sub(self.capacity / 10 * 9).max(waiting / 10);
        let seconds = line.seconds_to(excess, waiting).unwrap_or(5.0);
        whole(seconds.ceil().clamp(1.0, LONGEST_WAIT))
    }

    /// Notes that a message with these jobs went into the line.
    pub fn accepted(&self, line: Line, submitted_at: impl Iterator<Item = DateTime<Utc>>) {
        let mut jobs: Option<Bucket> = None;
        for at in submitted_at {
            let one = Bucket { first_at: at, last_at: at, jobs: 1 };
            jobs = Some(jobs.map_or(one, |jobs| jobs.and(one)));
        }
        if let Some(jobs) = jobs {
            self.known().entry(line).or_default().note_accepted(jobs);
        }
    }

    /// Where a queued job stands, as far as can be told.
    #[must_use]
    pub fn position(&self, id: JobId) -> Option<Position> {
        let family = id.kind()?.family();
        let routes = self.routes.borrow();
        let routing = routes.get(&family)?;
        let line = routing.line_at(id.place())?;
        let known = self.known();
        let current = known.get(&routing.named(family, line));
        let at = id.submitted_at();
        if current.is_some_and(|line| line.took(at)) {
            return current.map(|line| line.position(at));
        }
        // It may wait in a line of an earlier routing.
        let earlier = known.iter().filter(|(line, known)| {
            line.family == family && line.generation < routing.generation && !known.is_drained
        });
        let earlier = earlier.filter(|(line, known)| {
            let partitions = known.partitions;
            Routing { partitions, ..routing.clone() }.line_at(id.place()) == Some(line.name)
                && known.took(at)
        });
        let earlier = earlier.max_by_key(|(line, _)| line.generation);
        earlier.map(|(_, known)| known).or(current).map(|line| line.position(at))
    }

    /// Whether the job must have come out of its line by now, as far as the database has told lately.
    #[must_use]
    pub fn has_come_out(&self, job: JobId) -> bool {
        let now = Utc::now();
        // Most that are asked for are young.
        if job.submitted_at() + MARGIN >= now || !self.database_is_up() {
            return false;
        }
        let known = self.known();
        let progress = known.iter().map(|(line, known)| Progress {
            line: *line,
            partitions: known.partitions,
            is_drained: known.is_drained,
            passed: known.passed,
        });
        lost::has_come_out(job, now, progress)
    }

    /// Every line and what is known of it, in their order.
    #[must_use]
    pub fn all(&self) -> Vec<(Line, Known)> {
        let known = self.known();
        let mut all: Vec<_> = known.iter().map(|(line, known)| (*line, known.clone())).collect();
        all.sort_by_key(|(line, _)| *line);
        all
    }

    /// How they fared over the last 15 minutes, oldest first.
    #[must_use]
    pub fn lately(&self) -> Vec<Sample> {
        lock(&self.history).lately(Utc::now())
    }

    /// Whether the database has told of the lines lately.
    #[must_use]
    pub fn database_is_up(&self) -> bool {
        lock(&self.read).is_some_and(|read| read.elapsed() < LOOK_TTL)
    }

    /// What this process has accepted and the database was not told of yet, by line.
    fn pending(&self) -> HashMap<Line, Arrivals> {
        let known = self.known();
        let all = known.iter().filter(|(_, line)| line.pending().jobs() > 0);
        all.map(|(line, known)| (*line, known.pending().clone())).collect()
    }

    /// Remembers what the database said, which was told these before.
    fn note(&self, looked: Looked, told: &HashMap<Line, Arrivals>) {
        let Looked { routes, rows, source } = looked;
        *lock(&self.read) = Some(Instant::now());
        let before = std::mem::replace(&mut *lock(&self.source), source);
        let mut known = self.known();
        let is_less = |(line, row)| known.get(line).is_some_and(|known| known.is_more_than(row));
        if before.is_some() && before != source || rows.iter().any(is_less) {
            tracing::warn!(
                "PostgreSQL was started anew, or went back: outcomes are asked for again"
            );
            self.rewound.send_replace(());
        }
        known.retain(|line, _| rows.contains_key(line));
        let nothing = Arrivals::default();
        for (line, row) in rows {
            let told = told.get(&line).unwrap_or(&nothing);
            known.entry(line).or_default().note_row(row, told);
        }
        drop(known);
        self.deal_out(routes);
    }

    /// Deals jobs out by this routing from now on.
    fn deal_out(&self, routes: Routes) {
        self.routes.send_if_modified(|current| {
            let changed = **current != routes;
            if changed {
                *current = Arc::new(routes);
            }
            changed
        });
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Line, Known>> {
        lock(&self.known)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding it; if it did, what is known is still known.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The line of a job by this routing.
#[must_use]
pub fn line_of(routes: &Routes, job: &Job) -> Option<Line> {
    let family = job.kind().family();
    let routing = routes.get(&family)?;
    Some(routing.named(family, routing.line(job.keys())))
}

/// Looks until `stop`, then tells what was accepted meanwhile.
async fn read(lines: Arc<Lines>, pool: Pool, mut memory: Memory, stop: CancellationToken) {
    let (api, mut telling, mut logged) = (Uuid::new_v4(), Telling::default(), Vec::new());
    loop {
        let is_last = stop.is_cancelled();
        if telling.arrivals.is_empty() {
            telling = Telling { sequence: telling.sequence + 1, arrivals: lines.pending() };
        }
        let looked = within(LOOK_TIMEOUT, look(&pool, api, &telling)).await;
        *lock(&lines.schema_fault) = looked.as_ref().err().and_then(schema_fault);
        match looked {
            Ok(looked) => {
                memory.keep(&looked.routes).await;
                lines.note(looked, &std::mem::take(&mut telling.arrivals));
            }
            Err(error) => {
                tracing::debug!(%error, "lines not read");
                // One that answers, and is the wrong one, is not away.
                let is_away = lock(&lines.schema_fault).is_none();
                if is_away
                    && lines.routes.borrow().is_empty()
                    && let Some(routes) = memory.recall().await
                {
                    tracing::warn!("without the database: jobs are dealt out as was known last");
                    lines.deal_out(routes);
                }
            }
        }
        if is_last {
            return;
        }
        let faults = lines.faults();
        for fault in faults.iter().filter(|fault| !logged.contains(*fault)) {
            tracing::error!(fault, "set up wrongly");
        }
        logged = faults;
        tokio::select! {
            () = lines.refresh.notified() => {
                // Several may ask in a row while a change is under way.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// What is wrong with the database itself, if that is what the error is about.
fn schema_fault(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    let hint = match error.code()?.as_ref() {
        // Undefined table, column, function.
        "42P01" | "42703" | "42883" => "run `firstcome-worker migrate` of this version first",
        // No such database, wrong password, no such role or right.
        "3D000" | "28P01" | "28000" | "42501" => "look at DATABASE_URL",
        _ => return None,
    };
    Some(format!("{error}: {hint}"))
}

type Rows = HashMap<Line, Row>;

/// When its server was started, and which of its databases it is. Whatever is restored, or taken over by a
/// standby, is another one.
type Source = (DateTime<Utc>, i64);

/// What one look at the database found.
struct Looked {
    routes: Routes,
    rows: Rows,
    /// Unknown where there are no lines.
    source: Option<Source>,
}

/// Tells what this process has accepted, then asks what there is, that included. A database that cannot be
/// written to is away, whatever it tells.
async fn look(pool: &Pool, api: Uuid, telling: &Telling) -> Result<Looked, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    pool.check(&mut connection).await.inspect_err(|_| connection.give_up())?;
    store::tell(&mut connection, api, telling).await?;
    store::lines(&mut connection).await
}
