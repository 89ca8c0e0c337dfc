//! How long the lines are, as the broker says, or said to another API a moment ago.

use std::{sync::Arc, time::Duration};

use firstcome_broker::{
    BrokerArgs,
    connect::{self, Connection, SessionError},
    depth::Gauge,
};
use firstcome_contract::line::Line;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    LOOK_INTERVAL, LOOK_TIMEOUT, Lines,
    share::{Depths, Heard, Share},
};

/// How often Redis is asked what others have heard, which is not new any more.
const HEAR_INTERVAL: Duration = Duration::from_millis(250);

/// Asks the broker on a connection of its own, until `stop`.
pub(super) async fn watch(
    lines: Arc<Lines>,
    broker: BrokerArgs,
    share: Share,
    stop: CancellationToken,
) {
    let namespace: Arc<str> = broker.queue_namespace.as_str().into();
    connect::supervise(&broker, "firstcome-api monitor", &stop, |connection| {
        let (lines, namespace, stop) = (Arc::clone(&lines), Arc::clone(&namespace), stop.clone());
        let share = share.clone();
        async move {
            let gauge = gauge(&lines, connection, &namespace, &share);
            stop.run_until_cancelled(gauge).await.unwrap_or(Ok(()))
        }
    })
    .await;
}

async fn gauge(
    lines: &Lines,
    connection: Arc<Connection>,
    namespace: &str,
    share: &Share,
) -> Result<(), SessionError> {
    let mut gauge = Gauge::open(connection).await?;
    let mut ticks = interval(HEAR_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked: Option<Instant> = None;
    loop {
        ticks.tick().await;
        let heard = share.hear().await;
        let untold: Vec<Line> = match &heard {
            Heard::Depths(depths) => hear(lines, namespace, depths),
            Heard::Turn(_) | Heard::Later | Heard::Nothing => {
                lines.known().keys().copied().collect()
            }
        };
        // At every second tick, for itself.
        let is_due =
            looked.is_none_or(|looked| looked.elapsed() + HEAR_INTERVAL / 2 >= LOOK_INTERVAL);
        if untold.is_empty() || !(is_due || matches!(heard, Heard::Turn(_))) {
            continue;
        }
        let started = Instant::now();
        looked = Some(started);
        let depths = look(lines, &mut gauge, namespace, untold).await?;
        if let Heard::Turn(turn) = heard {
            share.tell(turn, &depths).await;
        }
        tracing::trace!(took = ?started.elapsed(), "looked at the lines");
    }
}

/// Asks the broker for these; what there is.
async fn look(
    lines: &Lines,
    gauge: &mut Gauge,
    namespace: &str,
    wanted: Vec<Line>,
) -> Result<Depths, SessionError> {
    let mut depths = Depths::new();
    for line in wanted {
        let queue = line.queue(namespace);
        let depth = timeout(LOOK_TIMEOUT, gauge.depth(&queue)).await;
        let depth = depth.map_err(|_| SessionError::Timeout(LOOK_TIMEOUT))??;
        if let Some(known) = lines.known().get_mut(&line) {
            known.note_depth(depth);
        }
        depths.extend(depth.map(|depth| (queue, depth)));
    }
    Ok(depths)
}

/// Takes over what another API was told; the lines of which it says nothing, or what is not taken from it: neither that
/// a line has no queue, nor that it is full. By hearsay nobody is refused.
fn hear(lines: &Lines, namespace: &str, depths: &Depths) -> Vec<Line> {
    let mut untold = Vec::new();
    for (line, known) in lines.known().iter_mut() {
        let depth = depths.get(&line.queue(namespace)).copied();
        match depth.filter(|depth| u64::from(depth.ready) < lines.capacity) {
            Some(depth) => known.note_depth(Some(depth)),
            None => untold.push(*line),
        }
    }
    untold
}
