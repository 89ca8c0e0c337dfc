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
    let mut waiting = Vec::new();
    // Lines that settle together, or while Redis is slow, share a message: every API hears each of them.
    while batches.recv_many(&mut waiting, MAX_WAITING).await > 0 {
        let mut together = SettledBatch::default();
        for SettledBatch { mut settled, mut sold_out, mut restocked } in waiting.drain(..) {
            together.settled.append(&mut settled);
            together.sold_out.append(&mut sold_out);
            together.restocked.append(&mut restocked);
        }
        let Ok(message) = together.encode() else {
            continue;
        };
        if let Err(error) = redis.publish(&channel, message).await {
            tracing::debug!(%error, "announcement lost");
        }
    }
}
