//! Redis as a cache: what it does not answer at once, it does not know.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{
    RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// The most that an answer of Redis is waited for: without one the request goes on without Redis.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);
/// How long Redis is left alone after it did not answer: a hung one costs one request in a while
/// the timeout, not every request.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Time between two questions whether it is there: less than between two scrapes.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// A connection to Redis that never makes anyone wait for long; cheap to clone.
#[derive(Clone)]
pub struct Cache {
    redis: ConnectionManager,
    started: Instant,
    /// Milliseconds since `started` until which it is left alone.
    away_until: Arc<AtomicU64>,
    /// Whether it answered last.
    is_up: Arc<AtomicBool>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

impl Cache {
    /// Connects when it is first used.
    ///
    /// # Errors
    /// A malformed URL.
    pub fn new(client: redis::Client) -> RedisResult<Self> {
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(ANSWER_TIMEOUT))
            .set_connection_timeout(Some(ANSWER_TIMEOUT))
            .set_number_of_retries(1);
        Ok(Self {
            redis: ConnectionManager::new_lazy_with_config(client, config)?,
            started: Instant::now(),
            away_until: Arc::default(),
            is_up: Arc::default(),
        })
    }

    /// Asks now and then whether Redis is there, until `stop`: it is told of a process with nothing to do, too.
    pub fn watch(&self, stop: CancellationToken) {
        let cache = self.clone();
        tokio::spawn(async move {
            let mut ticks = interval(WATCH_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                cache
                    .ask(async |mut redis| {
                        redis::cmd("PING").query_async::<String>(&mut redis).await
                    })
                    .await;
            }
        });
    }

    /// Whether Redis answered when it was asked last.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// What Redis says, if it says it in time.
    pub async fn ask<T, F>(&self, question: impl FnOnce(ConnectionManager) -> F) -> Option<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let now = self.started.elapsed();
        if now < Duration::from_millis(self.away_until.load(Ordering::Relaxed)) {
            return None;
        }
        let answer = timeout(ANSWER_TIMEOUT, question(self.redis.clone())).await;
        self.is_up.store(matches!(answer, Ok(Ok(_))), Ordering::Relaxed);
        if let Ok(Ok(answer)) = answer {
            return Some(answer);
        }
        let until = self.started.elapsed() + RETRY_INTERVAL;
        self.away_until
            .store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        None
    }
}
