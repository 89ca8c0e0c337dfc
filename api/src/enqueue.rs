//! The only publisher of jobs: natural batching towards the broker.
//!
//! **Guarantee:** a submission that returns `Ok` is on the disk of a quorum queue and will be
//! delivered at least once. An error means: refused, or *unknown* (the connection was lost or the
//! deadline passed before the broker answered); the job may still be settled then, but nobody was
//! told that it was accepted. The accept path writes nothing else, anywhere.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use firstcome_shared::{
    broker::{
        BrokerArgs,
        connect::{self, Alarm, Alarms, Connection, SessionError},
        publish::{Address, ConfirmedPublisher, Verdict},
        topology,
    },
    job::{Envelope, JobKind, envelope},
    partition::Partition,
};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::problem::{Code, Problem};

/// Submissions that may wait for the publisher; beyond it they are refused.
const BACKLOG: usize = 16_384;
/// Parcels of one line under way at once. While they are, submissions gather and share the next
/// one; two keep the broker busy while a confirm travels.
const PARCELS_PER_LINE: usize = 2;
/// When a refused client should come back; a lost broker is usually found again in 2 s.
const RETRY_AFTER: u64 = 2;

/// Why a job was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The broker is away or takes nothing at present.
    Unavailable,
    /// The line is full.
    LineFull,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Unavailable => Code::BrokerUnavailable,
            Refusal::LineFull => Code::LineFull,
        };
        Self::new(code).retry_after(RETRY_AFTER)
    }
}

struct Submission {
    partition: Partition,
    line: Vec<u8>,
    answer: oneshot::Sender<Result<(), Refusal>>,
}

/// Hands jobs to the publisher task.
#[derive(Debug)]
pub struct Enqueuer {
    inbox: mpsc::Sender<Submission>,
    link: Arc<Link>,
    partitions: u16,
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

    fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::UP
    }
}

impl Enqueuer {
    /// Starts the publisher task on a connection of its own; it ends with `stop`.
    #[must_use]
    pub fn start(
        broker: &BrokerArgs,
        deadline: Duration,
        stop: CancellationToken,
        tasks: &TaskTracker,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let link = Arc::new(Link::default());
        let publisher = Publisher { broker: broker.clone(), link: Arc::clone(&link), deadline };
        tasks.spawn(publisher.run(receiver, stop));
        Self { inbox: sender, link, partitions: broker.partitions, deadline }
    }

    /// Whether submissions have a chance at present.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.link.is_up()
    }

    /// Puts a job into its line.
    ///
    /// # Errors
    /// [`Refusal`], within the deadline.
    pub async fn submit(&self, envelope: &Envelope) -> Result<(), Refusal> {
        if !self.link.is_up() {
            return Err(Refusal::Unavailable);
        }
        let mut line = Vec::with_capacity(192);
        envelope.encode(&mut line).map_err(|_| Refusal::Unavailable)?;
        let partition = envelope.job.partition(self.partitions);
        let (answer, answered) = oneshot::channel();
        self.inbox
            .try_send(Submission { partition, line, answer })
            .map_err(|_| Refusal::Unavailable)?;
        match timeout(self.deadline, answered).await {
            Ok(Ok(answer)) => answer,
            // The session ended, or the broker did not confirm in time: unknown.
            Ok(Err(_)) | Err(_) => Err(Refusal::Unavailable),
        }
    }
}

struct Publisher {
    broker: BrokerArgs,
    link: Arc<Link>,
    deadline: Duration,
}

/// A parcel under way: who waits for it.
struct Parcel {
    partition: Partition,
    answers: Vec<oneshot::Sender<Result<(), Refusal>>>,
}

/// What waits for one partition.
struct Line {
    queue: String,
    waiting: VecDeque<Submission>,
    in_flight: usize,
}

impl Publisher {
    /// Publishes a message that no queue takes, and waits for it to come back. A broker with a
    /// memory or disk alarm says so only after the first publish, by not answering.
    async fn probe(&self, publisher: &mut ConfirmedPublisher<Parcel>) -> Result<(), SessionError> {
        let nowhere = format!("{}.probe", self.broker.queue_namespace);
        let partition = Partition { kind: JobKind::IssueCoupon, index: 0 };
        let parcel = Parcel { partition, answers: Vec::new() };
        publisher.publish(Address::Queue(&nowhere), Vec::new(), parcel);
        let answered = timeout(self.deadline, publisher.verdicts()).await;
        match answered.map_err(|_| SessionError::Timeout(self.deadline))?.pop() {
            Some((_, Verdict::Unknown(error))) => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn run(self, inbox: mpsc::Receiver<Submission>, stop: CancellationToken) {
        let publisher = Arc::new(self);
        // Sessions take turns with it.
        let inbox = Arc::new(Mutex::new(inbox));
        let url = publisher.broker.amqp_url.clone();
        connect::supervise(&url, "firstcome-api publisher", &stop, |connection| {
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
        topology::declare(connection, &self.broker.queue_namespace, self.broker.partitions).await?;
        let mut publisher = ConfirmedPublisher::<Parcel>::open(connection).await?;
        self.probe(&mut publisher).await?;
        let mut lines: BTreeMap<Partition, Line> = BTreeMap::new();
        let mut arrived = Vec::new();
        let mut last_verdict = Instant::now();
        let mut ticks = interval(self.deadline);
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
                        lines.values_mut().for_each(|line| line.waiting.clear());
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
                        if let Some(line) = lines.get_mut(&parcel.partition) {
                            line.in_flight -= 1;
                        }
                        conclude(parcel, verdict)?;
                    }
                }
                // Beyond the backlog the inbox fills up, which refuses at once.
                _ = inbox.recv_many(&mut arrived, BACKLOG), if waiting(&lines) < BACKLOG => {
                    for submission in arrived.drain(..) {
                        let line = lines.entry(submission.partition).or_insert_with_key(|partition| Line {
                            queue: partition.queue(&self.broker.queue_namespace),
                            waiting: VecDeque::new(),
                            in_flight: 0,
                        });
                        line.waiting.push_back(submission);
                    }
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
            if self.link.is_up() {
                for (partition, line) in &mut lines {
                    line.publish(*partition, &mut publisher);
                }
            }
        }
    }
}

fn waiting(lines: &BTreeMap<Partition, Line>) -> usize {
    lines.values().map(|line| line.waiting.len()).sum()
}

impl Line {
    /// Sends what is waiting, as full as it is: no timer holds it back.
    fn publish(&mut self, partition: Partition, publisher: &mut ConfirmedPublisher<Parcel>) {
        while self.in_flight < PARCELS_PER_LINE && !self.waiting.is_empty() {
            let mut body = Vec::new();
            let mut answers = Vec::new();
            while answers.len() < envelope::MAX_PARCEL
                && let Some(submission) = self.waiting.pop_front()
            {
                // Who no longer waits was told "unavailable"; that stays true.
                if !submission.answer.is_closed() {
                    body.extend_from_slice(&submission.line);
                    answers.push(submission.answer);
                }
            }
            if !answers.is_empty() {
                publisher.publish(Address::Queue(&self.queue), body, Parcel { partition, answers });
                self.in_flight += 1;
            }
        }
    }
}

/// Tells everyone in a parcel what became of it.
fn conclude(parcel: Parcel, verdict: Verdict) -> Result<(), SessionError> {
    let answer = match &verdict {
        Verdict::Confirmed => Ok(()),
        Verdict::Refused => Err(Refusal::LineFull),
        Verdict::Unroutable | Verdict::Unknown(_) => Err(Refusal::Unavailable),
    };
    for waiter in parcel.answers {
        let _ = waiter.send(answer);
    }
    match verdict {
        Verdict::Confirmed | Verdict::Refused => Ok(()),
        // The next session declares the queues again.
        Verdict::Unroutable => Err(SessionError::Unusable("a queue is gone".to_owned())),
        Verdict::Unknown(error) => Err(error.into()),
    }
}
