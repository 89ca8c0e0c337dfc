//! Consuming events: like a line of jobs, but in no particular order and by any number of
//! consumers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use firstcome_broker::{
    BrokerArgs,
    connect::{self, Connection, SessionError},
    consume::{self, Consumer, Receipt},
    depth::Gauge,
    retry::Retry,
    topology,
};
use firstcome_contract::{event::Event, job::envelope};
use firstcome_process::{database::Pool, fault_point};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    database::answered,
    line::{
        batch::{Origin, Reject},
        outcomes,
    },
    monitor,
};

/// The events that fill a batch; the last message may bring more.
const MAX_EVENTS: usize = 1_000;
/// The most messages that the broker pushes before they are acknowledged.
const PREFETCH: u16 = 64;
/// Time between two looks whether the queue is empty, while nothing comes.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The longest wait for the broker to tell how much the queue holds.
const DEPTH_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the role counts as ready after a batch, or a look at an empty queue.
const READY_TTL: Duration = Duration::from_secs(10);
/// How long the role counts as ready with a batch in hand.
const BATCH_TTL: Duration = Duration::from_secs(60);
/// The longest that messages may wait while none comes: then it is connected, but does not consume.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);
/// Time between two looks whether the broker still knows the channel of a batch in hand.
const CHANNEL_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// An event that was consumed and is not yet acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) event: Event,
    /// Attempts at the event before it was redriven.
    pub(crate) attempts: i32,
}

/// An event that its receiver refuses for its content: it becomes a dead letter.
#[derive(Debug)]
pub(crate) struct Undeliverable {
    pub(crate) received: Received,
    pub(crate) reason: String,
}

/// Why a batch was not handled, for the log: the next attempt may succeed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Interrupted(pub(crate) String);

impl From<sqlx::Error> for Interrupted {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}

/// Hands events to `handle`, batch by batch, until `stop`; a batch is acknowledged when `handle`
/// has succeeded, and retried in place until then. The token that it gets ends with `stop`, and when the
/// batch is no longer ours to acknowledge: it will come again.
pub(crate) async fn run<F>(
    broker: BrokerArgs,
    queue: String,
    pool: Pool,
    monitor: monitor::Role,
    stop: CancellationToken,
    handle: impl Fn(Vec<Received>, CancellationToken) -> F + Send + Sync + 'static,
) where
    F: Future<Output = Result<Vec<Undeliverable>, Interrupted>> + Send,
{
    let name = format!("firstcome-worker {queue}");
    let subscription = Arc::new(Subscription { broker, queue, pool, monitor, handle });
    connect::supervise(&subscription.broker, &name, &stop, |connection| {
        let (subscription, stop) = (Arc::clone(&subscription), stop.clone());
        async move {
            let ended = subscription.session(connection, &stop).await;
            ended.inspect_err(|error| subscription.monitor.ails(error))
        }
    })
    .await;
}

/// A queue of events that is being consumed.
struct Subscription<H> {
    broker: BrokerArgs,
    queue: String,
    pool: Pool,
    monitor: monitor::Role,
    handle: H,
}

/// Events and undecodable records that are acknowledged together.
#[derive(Debug, Default)]
struct Batch {
    events: Vec<Received>,
    rejects: Vec<Reject>,
    /// Acknowledges the last message and all before it.
    receipt: Option<Receipt>,
}

impl<H, F> Subscription<H>
where
    H: Fn(Vec<Received>, CancellationToken) -> F + Send + Sync,
    F: Future<Output = Result<Vec<Undeliverable>, Interrupted>> + Send,
{
    /// Handles and acknowledges batch after batch, until `stop`.
    async fn session(
        &self,
        connection: Arc<Connection>,
        stop: &CancellationToken,
    ) -> Result<(), SessionError> {
        topology::declare(&connection, &self.broker.queue_namespace).await?;
        let mut consumer = Consumer::open(&connection, &self.queue, PREFETCH).await?;
        let mut gauge = Gauge::open(Arc::clone(&connection)).await?;
        let _connected = self.monitor.connected();
        while let Some(batch) = self.take(&mut consumer, &mut gauge, stop).await? {
            self.monitor.well(BATCH_TTL);
            let _in_hand = self.monitor.metrics.events_in_hand(self.monitor.name, batch.oldest());
            self.finish(&batch, stop).await?;
            if let Some(receipt) = batch.receipt {
                fault_point::pass(fault_point::HANDLED);
                receipt.acknowledge().await?;
            }
            self.monitor.well(READY_TTL);
        }
        Ok(consumer.close().await?)
    }

    /// The next batch; `None` on `stop`. While none comes it is looked whether one should.
    async fn take(
        &self,
        consumer: &mut Consumer<'_>,
        gauge: &mut Gauge,
        stop: &CancellationToken,
    ) -> Result<Option<Batch>, SessionError> {
        let Self { queue, monitor, .. } = self;
        let mut batch = Batch::default();
        let mut progress = Instant::now();
        loop {
            // Nothing is taken when it is given up.
            let next = consumer.next_batch(stop, |message| batch.take(message));
            if let Ok(taken) = timeout(CHECK_INTERVAL, next).await {
                return Ok(taken?.then_some(batch));
            }
            if is_empty(gauge, queue).await? {
                progress = Instant::now();
                monitor.well(READY_TTL);
            } else if progress.elapsed() > SILENCE_TIMEOUT {
                let what = "connected, but nothing comes out of the queue";
                return Err(SessionError::Unusable(format!("{queue}: {what}")));
            } else {
                monitor.doubt("messages wait and none comes");
            }
        }
    }

    /// Handles a batch, in place until it succeeds; as long as it is ours.
    async fn finish(&self, batch: &Batch, stop: &CancellationToken) -> Result<(), SessionError> {
        let queue = &self.queue;
        // One log entry, however many: each is told by its dead letter.
        if let Some(Reject { reason, .. }) = batch.rejects.first() {
            let count = batch.rejects.len();
            tracing::error!(queue, count, reason, "undecodable events, dead-lettering them");
        }
        let mut retry = Retry::new(Duration::from_millis(10), Duration::from_secs(1));
        while let Err(error) = self.attempt(batch, stop).await {
            if stop.is_cancelled() || !batch.is_ours() {
                let what = format!("{queue}: events not handled: {error}");
                return Err(SessionError::Unusable(what));
            }
            let delay = retry.next_delay();
            self.monitor.ails(&error);
            tracing::warn!(queue, %error, ?delay, "events not handled, retrying in place");
            tokio::time::sleep(delay).await;
        }
        Ok(())
    }

    /// Handles a batch once, and sets aside what is refused of it.
    async fn attempt(&self, batch: &Batch, stop: &CancellationToken) -> Result<(), Interrupted> {
        let ours = stop.child_token();
        let handling = (self.handle)(batch.events.clone(), ours.clone());
        tokio::pin!(handling);
        let undeliverable = tokio::select! {
            biased;
            undeliverable = &mut handling => undeliverable,
            () = batch.lost() => {
                ours.cancel();
                handling.await
            }
        };
        let refused: Vec<Reject> = undeliverable?.into_iter().map(reject_event).collect();
        let letters: Vec<&Reject> = batch.rejects.iter().chain(&refused).collect();
        set_aside(&self.pool, &self.queue, &letters).await?;
        self.monitor.metrics.dead_lettered(self.monitor.name, letters.len());
        Ok(())
    }
}

impl Batch {
    /// Adds a message, and tells whether it is enough.
    fn take(&mut self, message: consume::Received) -> bool {
        let consume::Received { id, attempts, died_in, body, receipt, .. } = message;
        let origin = Origin { message_id: id, record: 0, died_in, attempts };
        for (number, record) in (0..).zip(envelope::lines(&body)) {
            match Event::decode(record) {
                Ok(event) => self.events.push(Received { event, attempts }),
                Err(reason) => {
                    let origin = Origin { record: number, ..origin.clone() };
                    let payload = record.to_vec();
                    let (accepted, trace, request_id) = (None, None, None);
                    let reject = Reject { accepted, trace, request_id, reason, origin, payload };
                    self.rejects.push(reject);
                }
            }
        }
        self.receipt = Some(receipt);
        self.events.len() >= MAX_EVENTS
    }

    /// When the first of its events happened.
    fn oldest(&self) -> Option<DateTime<Utc>> {
        self.events.iter().map(|received| received.event.time).min()
    }

    fn is_ours(&self) -> bool {
        self.receipt.as_ref().is_some_and(Receipt::is_valid)
    }

    /// Waits until it is no longer ours: the broker has closed the channel, or the connection is lost.
    async fn lost(&self) {
        while self.is_ours() {
            tokio::time::sleep(CHANNEL_CHECK_INTERVAL).await;
        }
    }
}

async fn set_aside(pool: &Pool, queue: &str, letters: &[&Reject]) -> Result<(), sqlx::Error> {
    for part in letters.chunks(MAX_EVENTS) {
        let mut connection = pool.acquire().await?;
        let part = part.iter().map(|reject| (*reject, 1));
        let stored = outcomes::insert_dead_letters(&mut connection, queue, part);
        let stored = answered(stored).await;
        connection.judge(Ok(stored))?;
    }
    Ok(())
}

async fn is_empty(gauge: &mut Gauge, queue: &str) -> Result<bool, SessionError> {
    let depth = timeout(DEPTH_TIMEOUT, gauge.depth(queue)).await;
    let depth = depth.map_err(|_| SessionError::Timeout(DEPTH_TIMEOUT))??;
    // We consume from it: a broker that knows of no consumer cannot tell.
    Ok(depth.is_some_and(|depth| depth.ready == 0 && depth.consumers > 0))
}

/// An event has an id of its own, wherever it travels; but one that was redriven is not the letter
/// that it came from, which may still be there.
fn reject_event(Undeliverable { received, reason }: Undeliverable) -> Reject {
    let Received { event, attempts } = received;
    let message_id = match attempts {
        0 => event.id.to_string(),
        _ => format!("{}, redriven after {attempts}", event.id),
    };
    Reject {
        accepted: None,
        trace: None,
        request_id: None,
        reason,
        origin: Origin { message_id, record: 0, died_in: None, attempts },
        payload: serde_json::to_vec(&event).unwrap_or_default(),
    }
}
