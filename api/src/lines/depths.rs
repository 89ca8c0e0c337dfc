//! How long the lines are, as the broker says.

use std::sync::Arc;

use firstcome_broker::{
    BrokerArgs,
    connect::{self, Connection, SessionError},
    depth::Gauge,
};
use firstcome_contract::line::Line;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{LOOK_INTERVAL, LOOK_TIMEOUT, Lines};

/// Asks the broker on a connection of its own, until `stop`.
pub(super) async fn watch(lines: Arc<Lines>, broker: BrokerArgs, stop: CancellationToken) {
    let namespace: Arc<str> = broker.queue_namespace.as_str().into();
    connect::supervise(&broker, "firstcome-api monitor", &stop, |connection| {
        let (lines, namespace, stop) = (Arc::clone(&lines), Arc::clone(&namespace), stop.clone());
        async move {
            stop.run_until_cancelled(gauge(&lines, connection, &namespace)).await.unwrap_or(Ok(()))
        }
    })
    .await;
}

async fn gauge(
    lines: &Lines,
    connection: Arc<Connection>,
    namespace: &str,
) -> Result<(), SessionError> {
    let mut gauge = Gauge::open(connection).await?;
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let started = Instant::now();
        let all: Vec<Line> = lines.known().keys().copied().collect();
        for line in all {
            let depth = timeout(LOOK_TIMEOUT, gauge.depth(&line.queue(namespace))).await;
            let depth = depth.map_err(|_| SessionError::Timeout(LOOK_TIMEOUT))??;
            let mut known = lines.known();
            let Some(known) = known.get_mut(&line) else { continue };
            known.note_depth(depth);
        }
        tracing::trace!(took = ?started.elapsed(), "looked at the lines");
    }
}
