//! Small batches of several lines share a transaction: with a thousand keys each line has a few jobs at a time, and a
//! transaction costs nearly as much with a few as with many.
//!
//! Who comes while another one settles waits, and is settled with all others that came meanwhile. It is an attempt, and
//! a short one: whatever goes wrong with it, each of its lines does its own batch alone, as if there had been none, and
//! no line waits for what a neighbour waits for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use firstcome_contract::job::{JobId, JobKind, Settled};
use firstcome_process::database::Pool;
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::{Instant, timeout},
};

use super::{
    attempt::{AttemptError, bounded, give_back},
    batch::{Batch, runs},
    lease::Lease,
    queue_context::QueueContext,
    settle::{Part, settle_on},
};

/// With so many jobs a batch gains nothing by a neighbour.
const ENOUGH: usize = 64;
/// The most jobs that share a transaction, but for the rest of the last batch.
const MAX_SHARED: usize = 1_000;
/// The longest that such a transaction may take.
const SHARED_TIMEOUT: Duration = Duration::from_secs(1);
/// How long every line settles alone after one that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// Where the small batches of the lines of a family meet.
#[derive(Debug, Default)]
pub struct Shared {
    waiting: Mutex<Vec<Share>>,
    /// Held by the one who settles for all.
    turn: tokio::sync::Mutex<()>,
    /// Until when every line settles alone.
    alone_until: Mutex<Option<Instant>>,
}

/// A batch that waits to be settled with others.
#[derive(Debug)]
struct Share {
    queue: String,
    lease: Lease,
    kind: JobKind,
    batch: Arc<Batch>,
    settled: oneshot::Sender<Vec<Settled>>,
}

impl Shared {
    /// Settles this batch with those of other lines that wait meanwhile. `None` if it is to be settled alone: it is
    /// large, or of several kinds, or of no line, or something went wrong.
    pub(super) async fn settle(
        &self,
        context: QueueContext<'_>,
        batch: &Arc<Batch>,
    ) -> Option<Vec<Settled>> {
        let lease = *context.lease?;
        let mut runs = runs(&batch.jobs, |job| job.kind());
        let (Some((kind, _)), None) = (runs.next(), runs.next()) else { return None };
        let is_alone = batch.jobs.len() >= ENOUGH || !batch.rejects.is_empty();
        if is_alone || self.are_alone() {
            return None;
        }
        let (settled, mut answer) = oneshot::channel();
        let (queue, batch) = (context.queue.to_owned(), Arc::clone(batch));
        let share = Share { queue, lease, kind, batch, settled };
        lock(&self.waiting).push(share);
        let _turn = tokio::select! {
            biased;
            settled = &mut answer => return settled.ok(),
            turn = self.turn.lock() => turn,
        };
        loop {
            match answer.try_recv() {
                Ok(settled) => return Some(settled),
                Err(TryRecvError::Closed) => return None,
                Err(TryRecvError::Empty) => self.lead(context).await,
            }
        }
    }

    /// Settles those that have waited longest.
    async fn lead(&self, context: QueueContext<'_>) {
        let mut shares = self.take();
        // Locks are taken in one order: see [`crate::jobs::contended`].
        shares.sort_by_key(|share| (share.kind, share.lease));
        let parts = shares.iter().map(|Share { queue, lease, batch, .. }| {
            let context = QueueContext { queue, lease: Some(lease), ..context };
            Part { context, jobs: &batch.jobs }
        });
        let parts: Vec<Part<'_>> = parts.collect();
        match attempt(context.pool, &parts).await {
            Ok(settled) => {
                let settled = settled.into_iter().map(|settled| (settled.job_id, settled));
                let mut settled: HashMap<JobId, Settled> = settled.collect();
                for Share { batch, settled: answer, .. } in shares {
                    let jobs = batch.jobs.iter();
                    let of_batch = jobs.filter_map(|job| settled.remove(&job.envelope.id));
                    let _ = answer.send(of_batch.collect());
                }
            }
            Err(error) => {
                let lines = shares.len();
                tracing::debug!(%error, lines, "not settled together, each line settles alone");
                if !error.is_taken_key() && !error.is_final() {
                    *lock(&self.alone_until) = Some(Instant::now() + PAUSE);
                }
            }
        }
    }

    fn take(&self) -> Vec<Share> {
        let mut waiting = lock(&self.waiting);
        // Who no longer waits was told to stop, and its jobs go back to the broker.
        waiting.retain(|share| !share.settled.is_closed());
        let mut jobs = 0;
        let enough = waiting.iter().position(|share| {
            jobs += share.batch.jobs.len();
            jobs >= MAX_SHARED
        });
        let taken = enough.map_or(waiting.len(), |last| last + 1);
        waiting.drain(..taken).collect()
    }

    fn are_alone(&self) -> bool {
        lock(&self.alone_until).is_some_and(|until| Instant::now() < until)
    }
}

async fn attempt(pool: &Pool, parts: &[Part<'_>]) -> Result<Vec<Settled>, AttemptError> {
    let mut connection =
        timeout(SHARED_TIMEOUT, pool.acquire()).await.map_err(|_| AttemptError::Frozen)??;
    let settling = bounded(settle_on(&mut connection, parts, false, true));
    let Ok(settled) = timeout(SHARED_TIMEOUT, settling).await else {
        // So little time says nothing about the server: whoever settles alone will see.
        connection.discard();
        return Err(AttemptError::Frozen);
    };
    give_back(connection, &settled);
    settled
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
