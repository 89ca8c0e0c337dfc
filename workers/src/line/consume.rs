//! One line: pull, settle, acknowledge.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use firstcome_broker::{
    connect::{Connection, SessionError},
    topology::PREFETCH,
};
use firstcome_contract::{
    family::Family,
    job::{Settled, SettledBatch, Status},
};
use futures_util::{FutureExt, StreamExt};
use lapin::{
    Acker, Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    attempt::{AttemptError, said},
    batch::Batch,
    dead_letter::set_aside,
    parts::Experience,
    report::Stats,
    settle::{Desk, settle},
    trace,
};
use crate::crew::{lease::Lease, role::Role, routing};
use crate::jobs::registry;

/// Time between two acknowledgements of a line. To the broker each is an entry of the queue's log, with a
/// write and a sync of its own; and what was committed and is not yet acknowledged comes to no harm:
/// if it is delivered again, its outcome is known.
const ACK_PACE: Duration = Duration::from_millis(20);
/// How long the broker may take to answer; it does in milliseconds, unless it is about to lose us.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a batch in hand may keep trying once its consumer was told to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// What a queue holds.
#[derive(Debug)]
pub(crate) enum Source {
    /// Jobs of the role's family, in order; ours for as long as the lease says so.
    Line(Lease),
    /// What the broker gave up on (see `topology::DELIVERY_LIMIT`): jobs of any kind, one that
    /// brings its readers down perhaps, innocent neighbours surely. Each of them was accepted, so
    /// each gets its outcome, alone.
    DeadLetters,
}

/// Why a consumer has ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConsumeError {
    /// It concerns this line alone, whose channel is closed.
    #[error(transparent)]
    Line(SessionError),
    /// The connection is of no use any more.
    #[error(transparent)]
    Connection(SessionError),
}

impl From<ConsumeError> for SessionError {
    fn from(error: ConsumeError) -> Self {
        match error {
            ConsumeError::Line(error) | ConsumeError::Connection(error) => error,
        }
    }
}

/// Consumes until `stop`, or until the line turns out to be another worker's; then acknowledges what was
/// settled and closes the channel, which gives the broker back the rest.
pub(crate) async fn consume(
    connection: &Connection,
    source: Source,
    queue: &str,
    role: &Role,
    stats: &Arc<Stats>,
    stop: &CancellationToken,
) -> Result<(), ConsumeError> {
    let channel = answered(connection.create_channel()).await.map_err(ConsumeError::Connection)?;
    let mut consumer = subscribe(&channel, queue, PREFETCH).await;
    let ended = match &mut consumer {
        Ok(consumer) => survived(serve(&channel, consumer, source, queue, role, stats, stop)).await,
        Err(_) => Ok(()),
    };
    // Whatever happened, the channel is closed first: that requeues what was prefetched at the head,
    // in order. A consumer that is dropped before sends basic.cancel, which would let the next one
    // start while messages of ours are still unacknowledged.
    if let Err(silence) = close(&channel).await {
        // A channel that the broker does not answer is its line's trouble, as long as it answers others:
        // under an alarm a queue may not be consumed from.
        let other =
            answered(connection.create_channel()).await.map_err(ConsumeError::Connection)?;
        close(&other).await.map_err(ConsumeError::Connection)?;
        return Err(ConsumeError::Line(silence));
    }
    consumer.and(ended).map_err(ConsumeError::Line)
}

/// A panic is its line's trouble, like any error.
async fn survived<T>(
    serving: impl Future<Output = Result<T, SessionError>>,
) -> Result<T, SessionError> {
    let served = AssertUnwindSafe(serving).catch_unwind().await;
    served
        .unwrap_or_else(|panic| Err(SessionError::Unusable(format!("panicked: {}", said(&*panic)))))
}

/// Begins to consume; the broker may push `prefetch` messages ahead.
pub(crate) async fn subscribe(
    channel: &Channel,
    queue: &str,
    prefetch: u16,
) -> Result<Consumer, SessionError> {
    // Per consumer, not global: RabbitMQ 4.3 denies global prefetch.
    answered(channel.basic_qos(prefetch, BasicQosOptions { global: false })).await?;
    // Manual acks: a message is the broker's until its batch is committed.
    let options = BasicConsumeOptions { no_ack: false, ..BasicConsumeOptions::default() };
    answered(channel.basic_consume(queue.into(), "".into(), options, FieldTable::default())).await
}

/// Whatever the broker says of it, it is closed; unless the broker says nothing.
async fn close(channel: &Channel) -> Result<(), SessionError> {
    if channel.status().connected()
        && let Err(silence @ SessionError::Timeout(_)) =
            answered(channel.close(200, "handing over".into())).await
    {
        return Err(silence);
    }
    Ok(())
}

/// What the broker says, if it says it in time.
pub(crate) async fn answered<T>(
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T, SessionError> {
    let answer = timeout(ANSWER_TIMEOUT, answer).await;
    Ok(answer.map_err(|_| SessionError::Timeout(ANSWER_TIMEOUT))??)
}

async fn serve(
    channel: &Channel,
    consumer: &mut Consumer,
    source: Source,
    queue: &str,
    role: &Role,
    stats: &Arc<Stats>,
    stop: &CancellationToken,
) -> Result<(), SessionError> {
    let family = match source {
        Source::Line(_) => Some(role.family),
        Source::DeadLetters => None,
    };
    let (done, acks) = watch::channel(None);
    let settling = async move {
        // Decoded while the one before is settled.
        let mut ahead = Ok(None);
        let mut size = Experience::default();
        loop {
            let mut batch = match std::mem::replace(&mut ahead, Ok(None))? {
                Some(batch) => batch,
                None => match next_batch(consumer, family, size.batch(), stop).await? {
                    Some(batch) => batch,
                    None => break,
                },
            };
            // What was not begun goes back to the broker.
            if stop.is_cancelled() {
                break;
            }
            if !batch.is_full() {
                drain(consumer, |delivery| batch.take(family, delivery))?;
            }
            let keep_trying = || channel.status().connected() && !stop.is_cancelled();
            stats.taken(&batch);
            let (taken, limit) = (Instant::now(), size.batch());
            let settled = {
                let settling = settle_batch(&source, queue, role, &batch, &mut size, &keep_trying);
                let settling = trace::settling(queue, &batch, settling);
                tokio::pin!(settling);
                let meanwhile = async {
                    tokio::select! {
                        biased;
                        settled = &mut settling => settled,
                        next = next_batch(consumer, family, limit, stop) => {
                            ahead = next;
                            settling.await
                        }
                    }
                };
                tokio::select! {
                    settled = meanwhile => settled,
                    () = expired(stop) => return Err(SessionError::Unusable(format!("{queue}: stopped in mid-batch"))),
                }
            };
            // Not acknowledged, so the broker keeps the messages for the next session.
            let settled = match settled {
                Ok(settled) => settled,
                Err(error) if error.is_final() => {
                    tracing::warn!(queue, %error, "batch abandoned");
                    role.monitor.metrics.fenced(role.family);
                    break;
                }
                Err(error) => {
                    return Err(SessionError::Unusable(format!(
                        "{queue}: batch abandoned: {error}"
                    )));
                }
            };
            if !batch.jobs.is_empty() {
                role.monitor.metrics.batch(role.family, batch.jobs.len(), taken.elapsed());
            }
            if let Source::Line(lease) = &source
                && batch.is_end_of_line
            {
                let storing = timeout(STOP_DEADLINE, routing::drained(&role.pool, lease.line));
                let stored = storing.await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
                stored.map_err(|error| SessionError::Unusable(format!("{queue}: {error}")))?;
                tracing::info!(queue, "drained");
            }
            tracing::debug!(queue, messages = batch.messages, jobs = settled.len(), "settled");
            if settled.iter().any(has_event) {
                role.notifier.notify();
            }
            let sold_out = batch.sold_out(&settled);
            role.announcer.announce(SettledBatch { settled, sold_out });

            stats.settled(&batch, size.batch());
            let last = batch.last().map(|last| last.acker.clone());
            if last.is_some() && done.send(last).is_err() {
                break;
            }
        }
        Ok(())
    };
    // Neither is given up in mid-way for the other's sake.
    let (settled, acknowledged) = tokio::join!(settling, acknowledge(queue, acks, stop));
    settled.and(acknowledged)
}

/// Acknowledges what is done, at a pace and up to the last, until nothing more comes.
async fn acknowledge(
    queue: &str,
    mut done: watch::Receiver<Option<Acker>>,
    stop: &CancellationToken,
) -> Result<(), SessionError> {
    while done.changed().await.is_ok() {
        let last = done.borrow_and_update().clone();
        if let Some(last) = last {
            // Multiple: this message and all before it. While the broker has an alarm it may wait for as long:
            // nothing is lost by that, unless this consumer is to end.
            let acknowledged = tokio::select! {
                acknowledged = last.ack(BasicAckOptions { multiple: true }) => acknowledged?,
                () = expired(stop) => false,
            };
            if !acknowledged {
                let what = "ack of a channel that is gone";
                return Err(SessionError::Unusable(format!("{queue}: {what}")));
            }
        }
        sleep(ACK_PACE).await;
    }
    Ok(())
}

fn has_event(job: &Settled) -> bool {
    job.status == Status::Succeeded && job.job_id.kind().is_some_and(registry::has_events)
}

/// A line's jobs are settled together, what the broker gave up on each alone.
async fn settle_batch(
    source: &Source,
    queue: &str,
    role: &Role,
    batch: &Batch,
    size: &mut Experience,
    keep_trying: &(impl Fn() -> bool + Sync),
) -> Result<Vec<Settled>, AttemptError> {
    let metrics = &role.monitor.metrics;
    let Role { pool, family, .. } = role;
    let (lease, parts) = match source {
        Source::Line(lease) => (Some(lease), batch.jobs.chunks(batch.jobs.len().max(1))),
        Source::DeadLetters => (None, batch.jobs.chunks(1)),
    };
    let desk = Desk { pool, family: *family, queue, lease, metrics };
    let mut settled = set_aside(desk, &batch.rejects, size, keep_trying).await?;
    for jobs in parts {
        settled.extend(settle(desk, jobs, size, keep_trying).await?);
    }
    Ok(settled)
}

/// The next batch, of about `limit` jobs at most; `None` on `stop`.
async fn next_batch(
    consumer: &mut Consumer,
    family: Option<Family>,
    limit: usize,
    stop: &CancellationToken,
) -> Result<Option<Batch>, SessionError> {
    let mut batch = Batch::of(limit);
    let pulled = pull(consumer, stop, |delivery| batch.take(family, delivery));
    Ok(pulled.await?.then_some(batch))
}

/// Waits for a message, then takes what else is already there, until `add` says that it is enough.
/// `false` on `stop`, with nothing taken.
pub(crate) async fn pull(
    consumer: &mut Consumer,
    stop: &CancellationToken,
    mut add: impl FnMut(Delivery) -> bool,
) -> Result<bool, SessionError> {
    let first = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(false),
        delivery = consumer.next() => delivery.ok_or_else(gone)??,
    };
    if !add(first) {
        drain(consumer, add)?;
    }
    Ok(true)
}

/// Takes what is already there, until `add` says that it is enough.
fn drain(
    consumer: &mut Consumer,
    mut add: impl FnMut(Delivery) -> bool,
) -> Result<(), SessionError> {
    while let Some(delivery) = consumer.next().now_or_never() {
        if add(delivery.ok_or_else(gone)??) {
            break;
        }
    }
    Ok(())
}

fn gone() -> SessionError {
    SessionError::Unusable("the broker cancelled the consumer".to_owned())
}

async fn expired(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(STOP_DEADLINE).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else its channel would not be closed in order, and the session of all lines would end.
    #[tokio::test]
    async fn a_panic_ends_as_an_error() {
        let panicking = survived(async {
            tokio::task::yield_now().await;
            assert!(std::hint::black_box(false), "so it goes");
            Ok(())
        });
        assert_eq!(panicking.await.unwrap_err().to_string(), "panicked: so it goes");
        assert_eq!(survived(async { Ok(7) }).await.unwrap(), 7);
    }
}
