//! One consumer per partition: pull, settle, acknowledge.

use std::{sync::Arc, time::Duration};

use firstcome_shared::{
    broker::{
        BrokerArgs,
        connect::{self, SessionError},
        topology,
    },
    job::{JobKind, Settled, SettledBatch},
    partition::Partition,
};
use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel, Connection, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    announce::Announcer,
    attempt::AttemptError,
    batch::{Batch, Job},
    settle::{set_aside, settle},
};

/// Messages that the broker may push ahead: about two batches when a message is one job, and
/// enough parcels for sixteen in a storm. Bounds the memory of a partition and what a lost
/// connection redelivers.
const PREFETCH: u16 = 256;
/// How long a batch in hand may keep trying once the worker was told to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// All that a role needs to serve a kind of job.
#[derive(Debug)]
pub struct Role {
    /// Which jobs.
    pub kind: JobKind,
    /// Where they wait.
    pub broker: BrokerArgs,
    /// Where they are settled.
    pub pool: PgPool,
    /// Who hears of it.
    pub announcer: Announcer,
}

/// Serves every partition of the role's kind until `stop`, reconnecting as long as it takes. On
/// `stop` it pulls nothing more, settles what it has in hand and closes the connection.
pub async fn run(role: Arc<Role>, stop: CancellationToken) {
    let name = format!("firstcome-worker {}", role.kind.as_str());
    connect::supervise(&role.broker.amqp_url, &name, &stop, |connection| {
        session(connection, Arc::clone(&role), stop.child_token())
    })
    .await;
}

/// Serves all partitions over one connection. The first one that fails ends the session for all:
/// whatever it was, a fresh connection with fresh channels and queues is the known good state.
async fn session(
    connection: Arc<Connection>,
    role: Arc<Role>,
    stop: CancellationToken,
) -> Result<(), SessionError> {
    topology::declare(&connection, &role.broker.queue_namespace, role.broker.partitions).await?;

    let namespace = &role.broker.queue_namespace;
    let lines = Partition::all(role.kind, role.broker.partitions);
    let lines = lines.map(|partition| (Source::Line, partition.queue(namespace)));
    let set_aside = (Source::DeadLetters, topology::dead_letters(namespace));
    let mut consumers = JoinSet::new();
    for (source, queue) in lines.chain([set_aside]) {
        let channel = connection.create_channel().await?;
        let (role, stop) = (Arc::clone(&role), stop.clone());
        consumers.spawn(async move { consume(&channel, source, &queue, &role, &stop).await });
    }
    let mut ended = Ok(());
    while let Some(joined) = consumers.join_next().await {
        let result = joined.unwrap_or_else(|panic| Err(SessionError::Unusable(panic.to_string())));
        stop.cancel();
        ended = ended.and(result);
    }
    ended
}

/// What a queue holds.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// Jobs of the role's kind, in order.
    Line,
    /// What the broker gave up on (see `topology::DELIVERY_LIMIT`): jobs of any kind, one that
    /// brings its readers down perhaps, innocent neighbours surely. Each of them was accepted, so
    /// each gets its outcome, alone.
    DeadLetters,
}

async fn consume(
    channel: &Channel,
    source: Source,
    queue: &str,
    role: &Role,
    stop: &CancellationToken,
) -> Result<(), SessionError> {
    // Per consumer, not global: RabbitMQ 4.3 denies global prefetch.
    channel.basic_qos(PREFETCH, BasicQosOptions { global: false }).await?;
    // Manual acks: a message is the broker's until its batch is committed.
    let options = BasicConsumeOptions { no_ack: false, ..BasicConsumeOptions::default() };
    let mut consumer =
        channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;

    let kind = match source {
        Source::Line => Some(role.kind),
        Source::DeadLetters => None,
    };
    while let Some(batch) = next_batch(&mut consumer, kind, stop).await? {
        let keep_trying = || channel.status().connected() && !stop.is_cancelled();
        let settling = settle_batch(source, queue, role, &batch, &keep_trying);
        let settled = tokio::select! {
            settled = settling => settled,
            () = expired(stop) => return Err(SessionError::Unusable(format!("{queue}: stopped in mid-batch"))),
        };
        // Not acknowledged, so the broker keeps the messages for the next session.
        let settled = settled.map_err(|error| {
            SessionError::Unusable(format!("{queue}: batch abandoned: {error}"))
        })?;
        tracing::debug!(queue, jobs = settled.len(), "settled");
        role.announcer.announce(SettledBatch { queue: queue.to_owned(), settled });

        if let Some(last) = batch.last() {
            // Multiple: this message and all before it, which are this batch.
            let current = last.ack(BasicAckOptions { multiple: true }).await?;
            if !current {
                return Err(SessionError::Unusable(format!(
                    "{queue}: ack of a channel that is gone"
                )));
            }
        }
    }
    // Closing the channel requeues what was prefetched at the head, in order. basic.cancel would
    // let the next consumer start while messages of ours are still unacknowledged.
    channel.close(200, "handing over".into()).await?;
    Ok(())
}

/// A line's jobs are settled together, what the broker gave up on each alone.
async fn settle_batch(
    source: Source,
    queue: &str,
    role: &Role,
    batch: &Batch,
    keep_trying: &(impl Fn() -> bool + Sync),
) -> Result<Vec<Settled>, AttemptError> {
    let parts: Vec<(JobKind, &[Job])> = match source {
        Source::Line => vec![(role.kind, batch.jobs.as_slice())],
        Source::DeadLetters => {
            let alone = |job| (Job::kind(job), std::slice::from_ref(job));
            batch.jobs.iter().map(alone).collect()
        }
    };
    let mut settled = set_aside(&role.pool, role.kind, queue, &batch.rejects, keep_trying).await?;
    for (kind, jobs) in parts {
        settled.extend(settle(&role.pool, kind, queue, jobs, keep_trying).await?);
    }
    Ok(settled)
}

/// The next batch; `None` on `stop`.
async fn next_batch(
    consumer: &mut Consumer,
    kind: Option<JobKind>,
    stop: &CancellationToken,
) -> Result<Option<Batch>, SessionError> {
    let mut batch = Batch::default();
    let pulled = pull(consumer, stop, |delivery| {
        batch.add(kind, delivery);
        batch.is_full()
    });
    Ok(pulled.await?.then_some(batch))
}

/// Waits for a message, then takes what else is already there, until `add` says that it is enough.
/// `false` on `stop`, with nothing taken.
pub(super) async fn pull(
    consumer: &mut Consumer,
    stop: &CancellationToken,
    mut add: impl FnMut(Delivery) -> bool,
) -> Result<bool, SessionError> {
    let gone = || SessionError::Unusable("the broker cancelled the consumer".to_owned());
    let first = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(false),
        delivery = consumer.next() => delivery.ok_or_else(gone)??,
    };
    let mut full = add(first);
    while !full && let Some(delivery) = consumer.next().now_or_never() {
        full = add(delivery.ok_or_else(gone)??);
    }
    Ok(true)
}

async fn expired(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(STOP_DEADLINE).await;
}
