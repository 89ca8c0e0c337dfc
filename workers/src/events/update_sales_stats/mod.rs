//! `update-sales-stats`: counts completed orders into product × day, less those that were cancelled, each event
//! once; and the daily recount that would find and repair any drift.

mod count;
mod count_once;
mod rebuild;
mod sale;

pub use rebuild::{Drift, close, forget, rebuild};

use std::{sync::Arc, time::Duration};

use firstcome_broker::{BrokerArgs, topology};
use firstcome_process::database::Pool;
use tokio::{
    sync::Mutex,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::subscribe::{self, Received};
use crate::{line::Tuning, monitor};

/// The name of this consumer in `event_inbox`.
const CONSUMER: &str = "sales-stats";
/// How many days before today the daily job recounts.
pub const REBUILD_DAYS: i32 = 7;
/// Time between two looks whether the daily job is due.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Counts events until `stop`. Several processes may: an event is counted by one of them.
pub async fn run(
    broker: BrokerArgs,
    pool: Pool,
    time_zone: String,
    monitor: monitor::Role,
    stop: CancellationToken,
) {
    let queue = topology::sales_stats(&broker.queue_namespace);
    let counting = {
        let (pool, time_zone) = (pool.clone(), Arc::new(time_zone.clone()));
        let tuning = Arc::new(Mutex::new(Tuning::default()));
        let metrics = Arc::clone(&monitor.metrics);
        subscribe::run(
            broker,
            queue,
            pool.clone(),
            monitor,
            stop.clone(),
            // Also when they are no longer ours to acknowledge: when they come again, they are known.
            move |events: Vec<Received>, _| {
                let (pool, time_zone) = (pool.clone(), Arc::clone(&time_zone));
                let (metrics, tuning) = (Arc::clone(&metrics), Arc::clone(&tuning));
                async move {
                    let mut tuning = tuning.lock().await;
                    let refused = count::count(&pool, &events, &time_zone, &mut tuning).await?;
                    let counted = events.len() - refused.len();
                    metrics.counted.inc_by(u64::try_from(counted).unwrap_or_default());
                    Ok(refused)
                }
            },
        )
    };
    tokio::join!(counting, stop.run_until_cancelled(daily(pool, time_zone)));
}

/// Recounts once per business day, by one of the processes.
async fn daily(pool: Pool, time_zone: String) {
    let mut ticks = interval(CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match rebuild::rebuild_daily(&pool, &time_zone, REBUILD_DAYS).await {
            Ok(Some(drifts)) => rebuild::log(&drifts),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the daily recount of the sales failed, it will be tried again")
            }
        }
    }
}
