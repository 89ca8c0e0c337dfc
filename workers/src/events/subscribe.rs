//! Consuming events: like a line of jobs, but in no particular order and by any number of
//! consumers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use firstcome_broker::{
    BrokerArgs,
    connect::{self, Connection, SessionError},
    depth::Gauge,
    retry::Retry,
    topology,
};
use firstcome_contract::{event::OrderCompleted, job::envelope};
use lapin::{Channel, message::Delivery, options::BasicAckOptions};
use sqlx::PgPool;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::line::{
    batch::{Origin, Reject},
    consume::{answered, pull, subscribe},
    record,
};
use crate::{database, monitor};

/// Events in one batch.
const MAX_EVENTS: usize = 1_000;
/// Messages that the broker may push ahead.
const PREFETCH: u16 = 64;
/// How long nothing may come until the queue is looked at, whether it is empty.
const LOOK: Duration = Duration::from_secs(2);
/// How long the broker may take to answer that.
const LOOK_DEADLINE: Duration = Duration::from_secs(3);
/// How long a batch handled, or an empty queue, proves that the role is well.
const LOOK_PROVES: Duration = Duration::from_secs(10);
/// How long a batch may be in hand.
const BATCH_PROVES: Duration = Duration::from_secs(60);
/// Messages that wait for so long while none comes mean: connected, but not consuming.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is looked whether the broker still knows the channel of a batch in hand.
const CHANNEL_LOOK: Duration = Duration::from_millis(500);

/// An event in hand.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) event: OrderCompleted,
    /// How often it was tried before it was redriven.
    pub(crate) attempts: i32,
}

/// An event that its receiver refuses for its content: it becomes a dead letter.
#[derive(Debug)]
pub(crate) struct Undeliverable {
    pub(crate) received: Received,
    pub(crate) reason: String,
}

/// Why a batch was not handled: the next attempt may succeed.
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
    pool: PgPool,
    monitor: monitor::Role,
    stop: CancellationToken,
    handle: impl Fn(Vec<Received>, CancellationToken) -> F + Send + Sync + 'static,
) where
    F: Future<Output = Result<Vec<Undeliverable>, Interrupted>> + Send,
{
    let name = format!("firstcome-worker {queue}");
    let context = Arc::new((broker, queue, pool, monitor, handle));
    let url = context.0.amqp_url.clone();
    connect::supervise(&url, &name, &stop, |connection| {
        let (context, stop) = (Arc::clone(&context), stop.clone());
        async move {
            let (broker, queue, pool, monitor, handle) = &*context;
            let ended = session(connection, broker, queue, pool, monitor, &stop, handle).await;
            ended.inspect_err(|error| monitor.ails(error))
        }
    })
    .await;
}

async fn session<F>(
    connection: Arc<Connection>,
    broker: &BrokerArgs,
    queue: &str,
    pool: &PgPool,
    monitor: &monitor::Role,
    stop: &CancellationToken,
    handle: &(impl Fn(Vec<Received>, CancellationToken) -> F + Send + Sync),
) -> Result<(), SessionError>
where
    F: Future<Output = Result<Vec<Undeliverable>, Interrupted>> + Send,
{
    topology::declare(&connection, &broker.queue_namespace).await?;
    let channel = answered(connection.create_channel()).await?;
    let mut consumer = subscribe(&channel, queue, PREFETCH).await?;
    let mut gauge = Gauge::open(connection).await?;
    let mut progress = Instant::now();
    loop {
        let (mut events, mut rejects, mut last) = (Vec::new(), Vec::new(), None);
        let pulled = pull(&mut consumer, stop, |delivery| {
            decode(&delivery, &mut events, &mut rejects);
            last = Some(delivery);
            events.len() >= MAX_EVENTS
        });
        // Nothing is taken when it is given up.
        let Ok(pulled) = timeout(LOOK, pulled).await else {
            if is_empty(&mut gauge, queue).await? {
                progress = Instant::now();
                monitor.well(LOOK_PROVES);
            } else if progress.elapsed() > PATIENCE {
                let what = "connected, but nothing comes out of the queue";
                return Err(SessionError::Unusable(format!("{queue}: {what}")));
            } else {
                monitor.doubt("messages wait and none comes");
            }
            continue;
        };
        if !pulled? {
            break;
        }
        monitor.well(BATCH_PROVES);
        // One line, however many: each is told by its dead letter.
        if let Some(Reject { reason, .. }) = rejects.first() {
            let count = rejects.len();
            tracing::error!(queue, count, reason, "undecodable events, dead-lettering them");
        }
        let attempt = async || -> Result<(), Interrupted> {
            let ours = stop.child_token();
            let handling = handle(events.clone(), ours.clone());
            tokio::pin!(handling);
            let undeliverable = tokio::select! {
                biased;
                undeliverable = &mut handling => undeliverable,
                () = gone(&channel) => {
                    ours.cancel();
                    handling.await
                }
            };
            let refused: Vec<Reject> = undeliverable?.into_iter().map(reject_event).collect();
            let letters: Vec<&Reject> = rejects.iter().chain(&refused).collect();
            set_aside(pool, queue, &letters).await?;
            monitor.metrics.dead_lettered(monitor.name, letters.len());
            Ok(())
        };
        let mut retry = Retry::new(Duration::from_millis(10), Duration::from_secs(1));
        while let Err(error) = attempt().await {
            if stop.is_cancelled() || !channel.status().connected() {
                return Err(SessionError::Unusable(format!(
                    "{queue}: events not handled: {error}"
                )));
            }
            let delay = retry.next_delay();
            monitor.ails(&error);
            tracing::warn!(queue, %error, ?delay, "events not handled, retrying in place");
            tokio::time::sleep(delay).await;
        }
        if let Some(last) = last
            && !last.ack(BasicAckOptions { multiple: true }).await?
        {
            return Err(SessionError::Unusable(format!("{queue}: ack of a channel that is gone")));
        }
        progress = Instant::now();
        monitor.well(LOOK_PROVES);
    }
    channel.close(200, "stopping".into()).await?;
    Ok(())
}

/// When the broker has closed the channel (as it does to whoever acknowledges nothing for its
/// `consumer_timeout`), or the connection is lost.
async fn gone(channel: &Channel) {
    while channel.status().connected() {
        tokio::time::sleep(CHANNEL_LOOK).await;
    }
}

async fn set_aside(pool: &PgPool, queue: &str, letters: &[&Reject]) -> Result<(), sqlx::Error> {
    for part in letters.chunks(MAX_EVENTS) {
        let mut connection = pool.acquire().await?;
        let part = part.iter().map(|reject| (*reject, 1));
        let stored = record::insert_dead_letters(&mut connection, queue, part);
        let stored = database::answered(stored).await;
        database::give_back(pool, connection, stored)?;
    }
    Ok(())
}

async fn is_empty(gauge: &mut Gauge, queue: &str) -> Result<bool, SessionError> {
    let depth = timeout(LOOK_DEADLINE, gauge.depth(queue)).await;
    let depth = depth.map_err(|_| SessionError::Timeout(LOOK_DEADLINE))??;
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
        reason,
        origin: Origin { message_id, line: 0, died_in: None, attempts },
        payload: serde_json::to_vec(&event).unwrap_or_default(),
    }
}

fn decode(delivery: &Delivery, events: &mut Vec<Received>, rejects: &mut Vec<Reject>) {
    let message = Origin::of(delivery, 0);
    for (number, line) in (0..).zip(envelope::lines(&delivery.data)) {
        match OrderCompleted::decode(line) {
            Ok(event) => events.push(Received { event, attempts: message.attempts }),
            Err(reason) => {
                let origin = Origin { line: number, ..message.clone() };
                let payload = line.to_vec();
                rejects.push(Reject { accepted: None, trace: None, reason, origin, payload });
            }
        }
    }
}
