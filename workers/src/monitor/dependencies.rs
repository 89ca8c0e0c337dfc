//! Whether the services answer on which a worker depends. Asked now and then, so that it is known also of a process that
//! has nothing to do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use firstcome_process::{database::Pool, redis::REDIS_TIMEOUT};
use redis::{
    Client,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Time between two questions: less than between two scrapes.
const ASK_INTERVAL: Duration = Duration::from_secs(2);

/// What is known of PostgreSQL and Redis.
#[derive(Debug, Default)]
pub(super) struct Dependencies {
    pub(super) database: AtomicBool,
    pub(super) redis: AtomicBool,
}

/// Asks until `stop`.
///
/// # Errors
/// None that is known. A service that is away is no error.
pub(super) fn watch(
    dependencies: Arc<Dependencies>,
    pool: Pool,
    redis: Client,
    stop: CancellationToken,
) -> redis::RedisResult<impl Future<Output = ()>> {
    let config = ConnectionManagerConfig::new()
        .set_response_timeout(Some(REDIS_TIMEOUT))
        .set_connection_timeout(Some(REDIS_TIMEOUT))
        .set_number_of_retries(1);
    let redis = ConnectionManager::new_lazy_with_config(redis, config)?;
    Ok(async move {
        let asking = async {
            tokio::join!(ask_database(&dependencies, &pool), ask_redis(&dependencies, redis))
        };
        stop.run_until_cancelled(asking).await;
    })
}

async fn ask_database(dependencies: &Dependencies, pool: &Pool) {
    let mut ticks = interval(ASK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match pool.prove().await {
            Ok(()) => dependencies.database.store(true, Ordering::Relaxed),
            // Others have all connections: they know.
            Err(_) if pool.is_exhausted() && !pool.is_lost() => {}
            Err(_) => dependencies.database.store(false, Ordering::Relaxed),
        }
    }
}

async fn ask_redis(dependencies: &Dependencies, mut redis: ConnectionManager) {
    let mut ticks = interval(ASK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = redis::cmd("PING").query_async::<String>(&mut redis).await;
        dependencies.redis.store(answer.is_ok(), Ordering::Relaxed);
    }
}

/// How many connections to the broker a role works on.
#[derive(Debug, Clone, Default)]
pub(super) struct Links(Arc<AtomicUsize>);

impl Links {
    pub(super) fn are_there(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    pub(super) fn add(&self) -> Connected {
        self.0.fetch_add(1, Ordering::Relaxed);
        Connected(self.clone())
    }
}

/// A role works on a connection to the broker, until this is dropped.
#[derive(Debug)]
pub(crate) struct Connected(Links);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
