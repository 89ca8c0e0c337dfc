//! One line: take, settle, announce, acknowledge.

use std::{
    convert::Infallible,
    future::pending,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use firstcome_broker::{
    connect::{Connection, SessionError},
    consume::{ConsumeError, Consumer, Receipt},
    topology::{self, PREFETCH},
};
use firstcome_contract::{
    family::Family,
    job::{Settled, SettledBatch, Status},
};
use firstcome_process::database::within;
use futures_util::FutureExt;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    attempt::{AttemptError, said},
    batch::Batch,
    context::Context,
    dead_letter::set_aside,
    lease::{self, Lease},
    parts::Tuning,
    queue_context::QueueContext,
    report::Stats,
    settle::settle,
    trace,
};
use crate::jobs::registry;

/// Time between two acknowledgements of a queue. To the broker each is an entry of the queue's log, with a
/// write and a sync of its own; and what was committed and is not yet acknowledged comes to no harm:
/// if it is delivered again, its outcome is known.
const ACK_INTERVAL: Duration = Duration::from_millis(20);
/// The longest that a batch in hand may keep trying once its consumer was told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The queue that is consumed, by what it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    /// Jobs of the family, in order; ours for as long as the lease says so.
    Line(Lease),
    /// What the broker gave up on (see `topology::DELIVERY_LIMIT`): jobs of any kind, one that
    /// brings its readers down perhaps, innocent neighbours surely. Each of them was accepted, so
    /// each gets its outcome, alone.
    DeadLetters,
}

impl Source {
    pub(crate) fn lease(self) -> Option<Lease> {
        match self {
            Self::Line(lease) => Some(lease),
            Self::DeadLetters => None,
        }
    }

    pub(crate) fn queue(self, namespace: &str) -> String {
        match self {
            Self::Line(lease) => lease.line.queue(namespace),
            Self::DeadLetters => topology::dead_letters(namespace),
        }
    }
}

/// Consumes until `stop`, or until the line turns out to be another worker's; then acknowledges what was
/// settled and closes the channel, which gives the broker back the rest.
pub(crate) async fn consume(
    connection: &Connection,
    source: Source,
    queue: &str,
    context: &Context,
    stats: &Stats,
    stop: &CancellationToken,
) -> Result<(), ConsumeError> {
    let mut consumer = Consumer::open(connection, queue, PREFETCH).await?;
    let tuning = Tuning::default();
    let settler = Settler { source, queue, context, stats, stop, tuning };
    let ended = survived(settler.run(&mut consumer)).await;
    consumer.close().await?;
    ended.map_err(ConsumeError::Queue)
}

/// Makes an error of a panic: then it ends its line only, like any error.
async fn survived<T>(
    settling: impl Future<Output = Result<T, SessionError>>,
) -> Result<T, SessionError> {
    let ended = AssertUnwindSafe(settling).catch_unwind().await;
    ended
        .unwrap_or_else(|panic| Err(SessionError::Unusable(format!("panicked: {}", said(&*panic)))))
}

/// The consumer of a queue: settles what comes out of it.
struct Settler<'a> {
    source: Source,
    queue: &'a str,
    context: &'a Context,
    stats: &'a Stats,
    stop: &'a CancellationToken,
    tuning: Tuning,
}

/// The batch that was decoded while the one before was settled, if there is one.
type Ahead = Result<Option<Batch>, SessionError>;

impl Settler<'_> {
    /// Settles batch after batch, and acknowledges them beside it.
    async fn run(self, consumer: &mut Consumer<'_>) -> Result<(), SessionError> {
        let (done, receipts) = watch::channel(None);
        let acknowledging = acknowledge(receipts, self.stop);
        // Neither is given up in mid-way for the other's sake.
        let (settled, acknowledged) = tokio::join!(self.settle_all(consumer, done), acknowledging);
        settled.and(acknowledged)
    }

    /// The loop. A batch whose receipt is not sent stays the broker's, which keeps it for the next session.
    async fn settle_all(
        mut self,
        consumer: &mut Consumer<'_>,
        done: watch::Sender<Option<Receipt>>,
    ) -> Result<(), SessionError> {
        let mut ahead = Ok(None);
        while let Some(batch) = self.take(consumer, ahead?).await? {
            let settled;
            let batch = Arc::new(batch);
            (settled, ahead) = self.settle(consumer, &batch).await?;
            let Some(settled) = settled else { break };
            self.note_drained(&batch).await?;
            self.announce(&batch, settled);
            self.stats.settled(&batch, self.tuning.batch_limit());
            if done.send(batch.receipt.clone()).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The next batch, with what else is already there; `None` on `stop`.
    async fn take(
        &self,
        consumer: &mut Consumer<'_>,
        ahead: Option<Batch>,
    ) -> Result<Option<Batch>, SessionError> {
        let (family, limit) = (self.family(), self.tuning.batch_limit());
        let next = match ahead {
            Some(batch) => Some(batch),
            None => decode(consumer, family, limit, self.stop).await?,
        };
        // What was not begun goes back to the broker.
        let Some(mut batch) = next.filter(|_| !self.stop.is_cancelled()) else { return Ok(None) };
        if !batch.is_full() {
            consumer.drain(|message| batch.take(family, message))?;
        }
        self.stats.taken(&batch);
        Ok(Some(batch))
    }

    /// Settles a batch, and decodes the next one meanwhile. Nothing is settled if the line is another
    /// worker's.
    async fn settle(
        &mut self,
        consumer: &mut Consumer<'_>,
        batch: &Arc<Batch>,
    ) -> Result<(Option<Vec<Settled>>, Ahead), SessionError> {
        let began = Instant::now();
        let (queue, context, stop) = (self.queue, self.context, self.stop);
        let (family, limit) = (self.family(), self.tuning.batch_limit());
        let mut ahead = Ok(None);
        let decoding = async {
            ahead = decode(consumer, family, limit, stop).await;
            pending::<Infallible>().await
        };
        let settled = tokio::select! {
            biased;
            settled = trace::in_span(queue, batch, self.decide(batch)) => settled,
            never = decoding => match never {},
            () = expired(stop) => {
                return Err(SessionError::Unusable(format!("{queue}: stopped in mid-batch")));
            }
        };
        if settled.is_ok() && !batch.jobs.is_empty() {
            context.metrics.batch(context.family, batch.jobs.len(), began.elapsed());
        }
        Ok((self.unless_fenced(settled)?, ahead))
    }

    /// Gives every job its outcome: a line's jobs together, and a few of them together with those of other lines;
    /// what the broker gave up on each alone.
    async fn decide(&mut self, batch: &Arc<Batch>) -> Result<Vec<Settled>, AttemptError> {
        let Self { source, queue, context, stop, tuning, .. } = self;
        let shared = &context.shared;
        let is_ours = || batch.receipt.as_ref().is_some_and(Receipt::is_valid);
        let keep_trying = || is_ours() && !stop.is_cancelled();
        let metrics = &context.metrics;
        let (lease, parts) = match source {
            Source::Line(lease) => (Some(&*lease), batch.jobs.chunks(batch.jobs.len().max(1))),
            Source::DeadLetters => (None, batch.jobs.chunks(1)),
        };
        let context =
            QueueContext { pool: &context.pool, family: context.family, queue, lease, metrics };
        if tuning.is_calm()
            && let Some(settled) = shared.settle(context, batch).await
        {
            return Ok(settled);
        }
        let mut settled = set_aside(context, &batch.rejects, tuning, &keep_trying).await?;
        for jobs in parts {
            settled.extend(settle(context, jobs, tuning, &keep_trying).await?);
        }
        Ok(settled)
    }

    /// What was settled; `None` if the line is another worker's.
    fn unless_fenced(
        &self,
        settled: Result<Vec<Settled>, AttemptError>,
    ) -> Result<Option<Vec<Settled>>, SessionError> {
        let queue = self.queue;
        match settled {
            Ok(settled) => Ok(Some(settled)),
            Err(error) if error.is_final() => {
                tracing::warn!(queue, %error, "batch abandoned");
                self.context.metrics.fenced(self.context.family);
                Ok(None)
            }
            Err(error) => Err(SessionError::Unusable(format!("{queue}: batch abandoned: {error}"))),
        }
    }

    /// Notes that the line holds no more, if its last message was in the batch.
    async fn note_drained(&self, batch: &Batch) -> Result<(), SessionError> {
        let queue = self.queue;
        if let Source::Line(lease) = &self.source
            && batch.is_end_of_line
        {
            let noted = within(STOP_TIMEOUT, lease::drained(&self.context.pool, lease.line)).await;
            noted.map_err(|error| SessionError::Unusable(format!("{queue}: {error}")))?;
            tracing::info!(queue, "drained");
        }
        Ok(())
    }

    /// Tells those who wait for the outcomes, and the relay if there are events.
    fn announce(&self, batch: &Batch, settled: Vec<Settled>) {
        let (messages, jobs) = (batch.messages, settled.len());
        tracing::debug!(queue = self.queue, messages, jobs, "settled");
        // Whatever was done is told in an event.
        if settled.iter().any(|job| job.status == Status::Succeeded) {
            self.context.notifier.notify();
        }
        let sold_out = registry::sold_out(batch.rejected(&settled));
        let restocked = registry::restocked(batch.done(&settled, registry::restocks));
        self.context.announcer.announce(SettledBatch { settled, sold_out, restocked });
    }

    /// The family that the jobs have to be of; `None` if any will do.
    fn family(&self) -> Option<Family> {
        match self.source {
            Source::Line(_) => Some(self.context.family),
            Source::DeadLetters => None,
        }
    }
}

/// Waits for the next batch, of about `limit` jobs at most; `None` on `stop`.
async fn decode(
    consumer: &mut Consumer<'_>,
    family: Option<Family>,
    limit: usize,
    stop: &CancellationToken,
) -> Result<Option<Batch>, SessionError> {
    let mut batch = Batch::of(limit);
    let taken = consumer.next_batch(stop, |message| batch.take(family, message)).await?;
    Ok(taken.then_some(batch))
}

/// Acknowledges what is done, at a pace and up to the last, until nothing more comes.
async fn acknowledge(
    mut done: watch::Receiver<Option<Receipt>>,
    stop: &CancellationToken,
) -> Result<(), SessionError> {
    while done.changed().await.is_ok() {
        let last = done.borrow_and_update().clone();
        if let Some(last) = last {
            // While the broker has an alarm it may wait for as long: nothing is lost by that, unless this
            // consumer is to end.
            tokio::select! {
                acknowledged = last.acknowledge() => acknowledged?,
                () = expired(stop) => {
                    return Err(SessionError::Unusable("stopped in mid-acknowledgement".to_owned()));
                }
            }
        }
        sleep(ACK_INTERVAL).await;
    }
    Ok(())
}

async fn expired(stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(STOP_TIMEOUT).await;
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
