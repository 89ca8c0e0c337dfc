//! Tells the APIs what was settled, over Redis pub/sub. A hint: lost ones cost a poller up to a
//! second, never an outcome, so nothing here ever delays or fails a batch.

use firstcome_contract::job::{SettledBatch, outcome::settled_channel};
use firstcome_process::redis::REDIS_TIMEOUT;
use redis::{
    AsyncTypedCommands,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::sync::mpsc;

/// The most batches that wait for a slow Redis; more are dropped.
const MAX_WAITING: usize = 64;
/// A message with so many outcomes takes no further batch along: Redis cuts off who has tens of megabytes waiting
/// (`client-output-buffer-limit pubsub`).
const ENOUGH: usize = 1_000;

/// The sending end; cheap to clone.
#[derive(Debug, Clone)]
pub struct Announcer(mpsc::Sender<SettledBatch>);

impl Announcer {
    /// Starts the task that publishes. It ends when every clone is dropped.
    ///
    /// # Errors
    /// None that is known. A Redis that is away is no error.
    pub fn start(redis: redis::Client, namespace: &str) -> redis::RedisResult<Self> {
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(REDIS_TIMEOUT))
            .set_connection_timeout(Some(REDIS_TIMEOUT))
            .set_number_of_retries(1);
        let redis = ConnectionManager::new_lazy_with_config(redis, config)?;
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        tokio::spawn(publish(redis, settled_channel(namespace), receiver));
        Ok(Self(sender))
    }

    pub(crate) fn announce(&self, batch: SettledBatch) {
        if !batch.settled.is_empty() && self.0.try_send(batch).is_err() {
            tracing::debug!("announcement dropped: Redis is slow or away");
        }
    }
}

async fn publish(
    mut redis: ConnectionManager,
    channel: String,
    mut batches: mpsc::Receiver<SettledBatch>,
) {
    while let Some(together) = next(&mut batches).await {
        let Ok(message) = together.encode() else {
            continue;
        };
        if let Err(error) = redis.publish(&channel, message).await {
            tracing::debug!(%error, "announcement lost");
        }
    }
}

/// The next batch, with those that wait behind it: lines that settle together, or while Redis is slow, share a message,
/// as every API hears each of them.
async fn next(batches: &mut mpsc::Receiver<SettledBatch>) -> Option<SettledBatch> {
    let mut together = batches.recv().await?;
    while together.settled.len() < ENOUGH
        && let Ok(SettledBatch { settled, sold_out, restocked }) = batches.try_recv()
    {
        together.settled.extend(settled);
        together.sold_out.extend(sold_out);
        together.restocked.extend(restocked);
    }
    Some(together)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use firstcome_contract::{
        ids::{CouponId, UserId},
        job::{JobId, Settled, Status},
    };

    use super::*;

    #[tokio::test]
    async fn what_waits_shares_messages_until_they_are_large() {
        let settled = || Settled {
            job_id: JobId::from(uuid::Uuid::nil()),
            user_id: UserId::new(1),
            status: Status::Succeeded,
            code: None,
            result: None,
            detail: None,
            settled_at: DateTime::UNIX_EPOCH,
        };
        let (sender, mut receiver) = mpsc::channel(MAX_WAITING);
        for (jobs, coupon) in [(1, 1), (ENOUGH - 2, 2), (4_000, 3), (ENOUGH, 4), (1, 5)] {
            let settled = std::iter::repeat_with(settled).take(jobs).collect();
            let (sold_out, restocked) = (vec![CouponId::new(coupon)], Vec::new());
            sender.try_send(SettledBatch { settled, sold_out, restocked }).unwrap();
        }
        drop(sender);
        let mut messages = Vec::new();
        while let Some(SettledBatch { settled, sold_out, .. }) = next(&mut receiver).await {
            messages.push((settled.len(), sold_out.into_iter().map(CouponId::get).collect()));
        }
        let expected = [(ENOUGH + 3_999, vec![1, 2, 3]), (ENOUGH, vec![4]), (1, vec![5])];
        assert_eq!(messages, expected);
    }
}
