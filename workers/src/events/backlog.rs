//! What waits, as the role relay-outbox tells it: events in the outbox and in the queues of their consumers, and dead
//! letters. Not a part of relaying, nor of consuming: either may be what stands still.

use std::{collections::HashMap, sync::Arc, time::Duration};

use firstcome_broker::{
    BrokerArgs,
    connect::{self, Connection, SessionError},
    depth::Gauge,
    topology,
};
use firstcome_contract::family::Family;
use firstcome_process::database::Pool;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    database::answered,
    metrics::{Metrics, OTHER},
    roles::RoleName,
};

/// The most rows whose events are counted to tell how many wait.
const MAX_LOOKED_AT: i64 = 500;
/// The most dead letters that are counted: whoever has as many need not know how many more.
const MAX_LETTERS: i64 = 1_000;
/// Time between two looks, also while the broker is away: less than between two scrapes.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The longest wait for the broker to tell how much a queue holds.
const DEPTH_TIMEOUT: Duration = Duration::from_secs(3);

/// Tells what waits until `stop`.
pub(super) async fn tell(
    broker: &BrokerArgs,
    pool: &Pool,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) {
    let in_the_database = stop.run_until_cancelled(look(pool, &broker.queue_namespace, metrics));
    let in_the_broker =
        connect::supervise(broker, "firstcome-worker monitor", stop, |connection| {
            let namespace = broker.queue_namespace.clone();
            let (metrics, stop) = (Arc::clone(metrics), stop.clone());
            async move {
                let gauging = gauge(connection, &namespace, &metrics);
                stop.run_until_cancelled(gauging).await.unwrap_or(Ok(()))
            }
        });
    tokio::join!(in_the_database, in_the_broker);
}

async fn look(pool: &Pool, namespace: &str, metrics: &Metrics) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // What was seen last stands where nothing is; the relay itself says that the database is away.
        match outbox(pool).await {
            Ok((events, age)) => {
                metrics.outbox_events.set(events);
                metrics.outbox_age.set(age);
            }
            Err(error) => tracing::debug!(%error, "backlog of the outbox not read"),
        }
        match letters(pool, namespace).await {
            Ok(letters) => metrics.letters(&letters),
            Err(error) => tracing::debug!(%error, "dead letters not counted"),
        }
    }
}

/// How many events wait in the outbox, about, and for how many seconds the first one has.
pub(crate) async fn outbox(pool: &Pool) -> Result<(i64, f64), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    // Counting a long outbox takes long.
    let waiting = sqlx::query!(
        r#"SELECT seen.rows AS "rows!", seen.events AS "events!", last.id - seen.last AS "beyond!",
                  extract(epoch FROM clock_timestamp() - first.created_at)::float8 AS "age!"
           FROM (SELECT created_at FROM outbox_parcels ORDER BY id LIMIT 1) AS first,
                (SELECT count(*) AS rows, sum(events) AS events, max(id) AS last
                 FROM (SELECT id, events FROM outbox_parcels ORDER BY id LIMIT $1) AS looked_at) AS seen,
                (SELECT id FROM outbox_parcels ORDER BY id DESC LIMIT 1) AS last"#,
        MAX_LOOKED_AT,
    );
    let waiting = answered(waiting.fetch_optional(&mut *connection)).await;
    let waiting = connection.judge(Ok(waiting))?;
    let told = waiting.map(|row| (estimate(row.rows, row.events, row.beyond), row.age.max(0.0)));
    Ok(told.unwrap_or_default())
}

/// How many events there are: those that were seen in the first rows, and as many on each id `beyond` them. Ids that were
/// never used, of jobs that were rolled back, count as well.
fn estimate(rows: i64, events: i64, beyond: i64) -> i64 {
    events.saturating_add(beyond.saturating_mul(events) / rows.max(1))
}

/// Dead letters of a source that nobody has dealt with: how many, of the [`MAX_LETTERS`] oldest of all, and for how many
/// seconds the first of them has waited.
pub(crate) type Letters = HashMap<&'static str, (i64, f64)>;

async fn letters(pool: &Pool, namespace: &str) -> Result<Letters, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let found = sqlx::query!(
        r#"SELECT queue, count(*) AS "count!",
                  extract(epoch FROM clock_timestamp() - min(dead_lettered_at))::float8 AS "age!"
           FROM (SELECT queue, dead_lettered_at FROM dead_letters WHERE discarded_at IS NULL ORDER BY id LIMIT $1) AS oldest
           GROUP BY queue"#,
        MAX_LETTERS,
    );
    let found = answered(found.fetch_all(&mut *connection)).await;
    let mut letters = Letters::new();
    for row in connection.judge(Ok(found))? {
        let (count, age) = letters.entry(source(&row.queue, namespace)).or_default();
        *count += row.count;
        *age = age.max(row.age);
    }
    Ok(letters)
}

/// The role that consumes from the queue.
fn source(queue: &str, namespace: &str) -> &'static str {
    let name = queue.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('.'));
    let family = name.and_then(|name| Family::parse(name.split('.').next()?).ok());
    match family {
        Some(family) => RoleName::of(family).as_str(),
        None if queue == topology::sales_stats(namespace) => RoleName::UpdateSalesStats.as_str(),
        None if queue == topology::data_platform(namespace) => {
            RoleName::SendToDataPlatform.as_str()
        }
        None => OTHER,
    }
}

/// The queues of events, each with the role that consumes from it.
pub(crate) fn event_queues(namespace: &str) -> [(String, RoleName); 2] {
    [
        (topology::sales_stats(namespace), RoleName::UpdateSalesStats),
        (topology::data_platform(namespace), RoleName::SendToDataPlatform),
    ]
}

async fn gauge(
    connection: Arc<Connection>,
    namespace: &str,
    metrics: &Metrics,
) -> Result<(), SessionError> {
    let mut gauge = Gauge::open(connection).await?;
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (queue, role) in event_queues(namespace) {
            let depth = timeout(DEPTH_TIMEOUT, gauge.depth(&queue)).await;
            let depth = depth.map_err(|_| SessionError::Timeout(DEPTH_TIMEOUT))??;
            metrics.event_queue(role.as_str(), depth.map_or(0, |depth| depth.ready));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_told_exactly_while_it_is_little() {
        assert_eq!(estimate(3, 200, 0), 200);
        assert_eq!(estimate(500, 64_000, 1_500), 256_000);
        // Nobody knows what is on ids that were never seen.
        assert_eq!(estimate(500, 750, 2), 753);
        assert_eq!(estimate(1, i64::MAX, i64::MAX), i64::MAX);
        assert_eq!(estimate(0, 0, 0), 0);
    }

    #[test]
    fn each_queue_has_its_role() {
        for (queue, role) in [
            ("shop.coupon.1.05", "coupons"),
            ("shop.issue-coupon.1.05", "coupons"),
            ("shop.product.2.pin-17", "products"),
            ("shop.order-completed.sales-stats", "update-sales-stats"),
            ("shop.order-completed.data-platform", "send-to-data-platform"),
            ("shop.dead-letters", OTHER),
            ("coupon.1.05", OTHER),
        ] {
            assert_eq!(source(queue, "shop"), role, "{queue}");
        }
    }
}
