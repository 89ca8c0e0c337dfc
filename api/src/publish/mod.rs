//! The only publisher of jobs: natural batching towards the broker, at a pace.
//!
//! **Guarantee:** a submission that returns `Ok` is on the disk of a quorum queue and will be
//! delivered at least once. An error means: refused, or *unknown* (the connection was lost or the
//! deadline passed before the broker answered); the job may still be settled then, but nobody was
//! told that it was accepted. The accept path writes nothing else, anywhere.

mod waiting;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use firstcome_broker::{
    BrokerArgs,
    connect::{self, Alarm, Alarms, Connection, SessionError},
    publish::{ConfirmedPublisher, Verdict},
    topology,
};
use firstcome_contract::{
    family::Family,
    job::{Envelope, JobId},
    line::{Line, LineName, Naming},
};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    http::problem::{Code, Problem},
    lines::{self, Lines, Routes},
    seldom::{LOG_INTERVAL, Seldom},
};
pub use waiting::Submission;
use waiting::{Parcel, Waiting};

/// Submissions that may wait for the publisher; beyond it they are refused.
const BACKLOG: usize = 16_384;
/// How often the routing is asked for while jobs wait for it.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);
/// When a refused client should come back; a lost broker is usually found again in 2 s.
const RETRY_AFTER: u64 = 2;

/// Why a job was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The broker is away or takes nothing at present.
    Unavailable,
    /// The line is full; a good part of it should be free after so many seconds.
    LineFull(u64),
    /// The request's idempotency key belongs to another job.
    KeyTaken(Owner),
}

/// The job that has an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The id by which the job is polled.
    pub job: JobId,
    /// It is in its line or settled; else that is not known, and publishing it again is safe.
    pub is_queued: bool,
    /// Whether its request asked for the same; else the key is misused.
    pub is_same: bool,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unavailable => Self::new(Code::BrokerUnavailable).retry_after(RETRY_AFTER),
            Refusal::LineFull(seconds) => Self::new(Code::LineFull).retry_after(seconds),
            Refusal::KeyTaken(_) => Self::new(Code::IdempotencyKeyReused),
        }
    }
}

/// Receives the answer to a submission: whether the broker has the job.
pub type Answered = oneshot::Receiver<Result<(), Refusal>>;

/// Hands jobs to the publisher task; cheap to clone.
#[derive(Debug, Clone)]
pub struct Enqueuer {
    inbox: mpsc::Sender<Submission>,
    link: Arc<Link>,
    lines: Arc<Lines>,
    deadline: Duration,
}

/// Whether the broker takes messages, so that a submission need not find out by its deadline.
#[derive(Debug, Default)]
struct Link(AtomicU8);

impl Link {
    const DOWN: u8 = 0;
    const UP: u8 = 1;
    /// The broker is there but blocks publishers (memory or disk alarm).
    const BLOCKED: u8 = 2;

    fn set(&self, state: u8) {
        self.0.store(state, Ordering::Relaxed);
    }

    fn is(&self, state: u8) -> bool {
        self.0.load(Ordering::Relaxed) == state
    }

    fn is_up(&self) -> bool {
        self.is(Self::UP)
    }
}

impl Enqueuer {
    /// Starts the publisher task on a connection of its own; it ends with `stop`.
    #[must_use]
    pub fn start(
        broker: &BrokerArgs,
        lines: &Arc<Lines>,
        deadline: Duration,
        stop: CancellationToken,
        tasks: &TaskTracker,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let link = Arc::new(Link::default());
        let publisher = Publisher {
            broker: broker.clone(),
            link: Arc::clone(&link),
            lines: Arc::clone(lines),
            deadline,
        };
        tasks.spawn(publisher.run(receiver, stop));
        Self { inbox: sender, link, lines: Arc::clone(lines), deadline }
    }

    /// Whether the broker takes messages, as far as the publisher has noticed.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Whether the broker is there but blocks publishers.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.link.is(Link::BLOCKED)
    }

    /// Puts a job into its line, or into that of a newer routing; one that `is_new` is counted among those that came.
    ///
    /// # Errors
    /// [`Refusal`], within the deadline.
    pub async fn submit(
        &self,
        envelope: &Envelope,
        line: Option<Line>,
        is_new: bool,
    ) -> Result<(), Refusal> {
        let (submission, answered) = self.submission(envelope, line, is_new)?;
        self.send(submission);
        self.answer(answered, Duration::ZERO).await
    }

    /// A job that may go into its line, and where the answer will come.
    ///
    /// # Errors
    /// [`Refusal`], as far as it is known at once.
    pub fn submission(
        &self,
        envelope: &Envelope,
        line: Option<Line>,
        is_new: bool,
    ) -> Result<(Submission, Answered), Refusal> {
        if !self.link.is_up() {
            return Err(Refusal::Unavailable);
        }
        let line = line.ok_or(Refusal::Unavailable)?;
        self.lines.admit(line).map_err(Refusal::LineFull)?;
        let mut record = Vec::with_capacity(256);
        envelope.encode(&mut record).map_err(|_| Refusal::Unavailable)?;
        let (answer, answered) = oneshot::channel();
        let came_at = is_new.then(|| envelope.id.submitted_at());
        Ok((Submission { line, came_at, record, answer }, answered))
    }

    /// Hands a submission to the publisher; one too many is refused at once.
    pub fn send(&self, submission: Submission) {
        if let Err(refused) = self.inbox.try_send(submission) {
            refused.into_inner().refuse(Refusal::Unavailable);
        }
    }

    /// What became of a submission that needed so long to be sent.
    ///
    /// # Errors
    /// [`Refusal`], within that time and the deadline.
    pub async fn answer(&self, answered: Answered, sending: Duration) -> Result<(), Refusal> {
        match timeout(sending + self.deadline, answered).await {
            Ok(Ok(answer)) => answer,
            // The session ended, or the broker did not confirm in time: unknown.
            Ok(Err(_)) | Err(_) => Err(Refusal::Unavailable),
        }
    }
}

struct Publisher {
    broker: BrokerArgs,
    link: Arc<Link>,
    lines: Arc<Lines>,
    deadline: Duration,
}

impl Publisher {
    /// Waits until the broker takes messages: while it has an alarm it does not answer.
    async fn probe(
        &self,
        publisher: &mut ConfirmedPublisher<Parcel>,
        alarms: &mut Alarms,
    ) -> Result<(), SessionError> {
        let nowhere = format!("{}.probe", self.broker.queue_namespace);
        let (family, name) = (Family::Coupon, LineName::Partition(0));
        let line = Line { family, generation: 0, name, naming: Naming::Family };
        let parcel = Parcel { line, submissions: Vec::new() };
        publisher.probe(&nowhere, parcel);
        loop {
            tokio::select! {
                mut verdicts = publisher.verdicts() => return match verdicts.pop() {
                    Some((_, Verdict::Unknown(error))) => Err(error),
                    _ => Ok(()),
                },
                alarm = alarms.next() => match alarm? {
                    Alarm::Raised(reason) => {
                        tracing::warn!(reason, "the broker blocks publishers");
                        self.link.set(Link::BLOCKED);
                    }
                    Alarm::Cleared => self.link.set(Link::DOWN),
                },
                () = sleep(self.deadline), if !self.link.is(Link::BLOCKED) => {
                    return Err(SessionError::Timeout(self.deadline));
                }
            }
        }
    }

    async fn run(self, inbox: mpsc::Receiver<Submission>, stop: CancellationToken) {
        let publisher = Arc::new(self);
        // Sessions take turns with it.
        let inbox = Arc::new(Mutex::new(inbox));
        let broker = publisher.broker.clone();
        connect::supervise(&broker, "firstcome-api publisher", &stop, |connection| {
            let (publisher, inbox, stop) =
                (Arc::clone(&publisher), Arc::clone(&inbox), stop.clone());
            async move {
                let ended = publisher.session(&connection, &mut *inbox.lock().await, &stop).await;
                publisher.link.set(Link::DOWN);
                ended
            }
        })
        .await;
    }

    /// Publishes until something is wrong with the connection. Whoever still waits then gets
    /// "unavailable" by the drop of the senders.
    async fn session(
        &self,
        connection: &Connection,
        inbox: &mut mpsc::Receiver<Submission>,
        stop: &CancellationToken,
    ) -> Result<(), SessionError> {
        let mut alarms = Alarms::of(connection);
        topology::declare(connection, &self.broker.queue_namespace).await?;
        let mut publisher = ConfirmedPublisher::<Parcel>::open(connection).await?;
        match stop.run_until_cancelled(self.probe(&mut publisher, &mut alarms)).await {
            None => return Ok(()),
            Some(answered) => answered?,
        }
        let mut lines: BTreeMap<Line, Waiting> = BTreeMap::new();
        let mut arrived = Vec::new();
        let mut routes = self.lines.routes();
        // What came back because its line takes no more: waits for the routing that replaced it.
        let mut stranded: Vec<Submission> = Vec::new();
        let mut look_again = interval(REFRESH_INTERVAL);
        look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut log = Seldom::new(LOG_INTERVAL);
        let mut last_verdict = Instant::now();
        let mut ticks = interval(self.deadline);
        // When the first line may send what only the pace keeps back.
        let mut next = None;
        self.link.set(Link::UP);

        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                alarm = alarms.next() => match alarm? {
                    // Take nothing on, and answer all that is not yet published.
                    Alarm::Raised(reason) => {
                        tracing::warn!(reason, "the broker blocks publishers");
                        self.link.set(Link::BLOCKED);
                        lines.values_mut().for_each(|waiting| waiting.waiting.clear());
                    }
                    Alarm::Cleared => {
                        tracing::info!("the broker takes messages again");
                        last_verdict = Instant::now();
                        self.link.set(Link::UP);
                    }
                },
                verdicts = publisher.verdicts() => {
                    last_verdict = Instant::now();
                    for (parcel, verdict) in verdicts {
                        let is_back = matches!(verdict, Verdict::Unroutable);
                        if let Some(waiting) = lines.get_mut(&parcel.line)
                            && waiting.answered(is_back)
                            && log.now()
                        {
                            let queue = parcel.line.queue(&self.broker.queue_namespace);
                            tracing::warn!(
                                queue,
                                "jobs come back from a line: nothing leads to its queue, which the \
                                 workers look after"
                            );
                        }
                        stranded.extend(self.conclude(parcel, verdict, &mut log)?);
                    }
                }
                _ = inbox.recv_many(&mut arrived, BACKLOG) => {
                    let routes = routes.borrow();
                    for submission in arrived.drain(..) {
                        // Routed just before a change.
                        if is_current(&routes, submission.line) {
                            self.stand(&mut lines, submission);
                        } else {
                            stranded.push(submission);
                        }
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                _ = look_again.tick(), if !stranded.is_empty() => {
                    self.lines.refresh();
                    // The line they came back from may be there again; else they come back again.
                    self.restand(&mut lines, &mut stranded, &routes.borrow_and_update());
                }
                Ok(()) = routes.changed() => {
                    let routes = routes.borrow_and_update();
                    // What is under way is still to be answered.
                    lines.retain(|line, waiting| {
                        let is_current = is_current(&routes, *line);
                        if !is_current {
                            stranded.extend(waiting.waiting.drain(..));
                        }
                        is_current || waiting.in_flight > 0
                    });
                    self.restand(&mut lines, &mut stranded, &routes);
                }
                _ = ticks.tick() => {
                    // A broker that confirms nothing for two deadlines is as good as gone, even
                    // if the socket is open.
                    let silent = last_verdict.elapsed() > self.deadline * 2;
                    if silent && publisher.in_flight() > 0 && self.link.is_up() {
                        return Err(SessionError::Timeout(self.deadline * 2));
                    }
                    if publisher.in_flight() == 0 {
                        last_verdict = Instant::now();
                    }
                }
            }
            next = None;
            if self.link.is_up() {
                next = waiting::publish_all(&mut lines, &mut publisher);
            }
        }
    }
}

impl Publisher {
    /// Puts a submission behind the others of its line, or refuses it.
    fn stand(&self, lines: &mut BTreeMap<Line, Waiting>, submission: Submission) {
        let waiting = lines.entry(submission.line).or_insert_with_key(|line| {
            Waiting::new(line.exchange(&self.broker.queue_namespace), line.routing_key())
        });
        waiting.push(submission);
    }

    /// Puts submissions into the lines that these routes say.
    fn restand(
        &self,
        lines: &mut BTreeMap<Line, Waiting>,
        submissions: &mut Vec<Submission>,
        routes: &Routes,
    ) {
        for submission in std::mem::take(submissions) {
            let job = Envelope::decode(&submission.record).map(|envelope| envelope.job);
            // What we encoded decodes; whoever waits for what does not is told "unavailable".
            if let Some(line) = job.ok().and_then(|job| lines::line_of(routes, &job)) {
                self.stand(lines, Submission { line, ..submission });
            }
        }
    }

    /// Tells everyone in a parcel what became of it. What no line took is given back.
    fn conclude(
        &self,
        parcel: Parcel,
        verdict: Verdict,
        log: &mut Seldom,
    ) -> Result<Vec<Submission>, SessionError> {
        let Parcel { line, submissions } = parcel;
        let answer = match &verdict {
            Verdict::Confirmed => {
                let came_at = submissions.iter().filter_map(|submission| submission.came_at);
                self.lines.accepted(line, came_at);
                Ok(())
            }
            Verdict::Refused => {
                let seconds = self.lines.retry_after(line);
                if seconds.is_none() && log.now() {
                    let queue = line.queue(&self.broker.queue_namespace);
                    tracing::warn!(queue, "a queue with room refuses jobs: can its broker write?");
                }
                Err(seconds.map_or(Refusal::Unavailable, Refusal::LineFull))
            }
            Verdict::Unroutable => return Ok(submissions),
            Verdict::Unknown(_) => Err(Refusal::Unavailable),
        };
        for submission in submissions {
            let _ = submission.answer.send(answer);
        }
        match verdict {
            Verdict::Unknown(error) => Err(error),
            Verdict::Confirmed | Verdict::Refused | Verdict::Unroutable => Ok(Vec::new()),
        }
    }
}

fn is_current(routes: &Routes, line: Line) -> bool {
    routes.get(&line.family).is_some_and(|routing| routing.generation == line.generation)
}
