//! `send-to-data-platform`: hands the events that the data platform asks for to it over HTTP, in batches.
//!
//! **Guarantee:** every event is delivered at least once, or set aside as a dead letter when the
//! platform refuses it for its content; a duplicate has the same event id. A platform that is slow,
//! away, overloaded or hanging keeps the events waiting in their queue, and nobody else.

mod circuit;
mod deliver;

pub use deliver::Platform;

use std::{sync::Arc, time::Duration};

use firstcome_broker::{BrokerArgs, topology};
use firstcome_process::database::Pool;
use tokio::{sync::Mutex, time::sleep};
use tokio_util::sync::CancellationToken;

use super::subscribe::{self, Interrupted, Received, Undeliverable};
use crate::monitor;
use circuit::Circuit;
use deliver::Delivery;

/// How much longer than an attempt or a pause may take the role counts as ready.
const READY_MARGIN: Duration = Duration::from_secs(10);

/// Sends events until `stop`, and reconnects as long as it takes.
pub async fn run(
    broker: BrokerArgs,
    pool: Pool,
    platform: Platform,
    monitor: monitor::Role,
    stop: CancellationToken,
) {
    let platform = Arc::new(platform);
    let circuit = Arc::new(Mutex::new(Circuit::new(monitor.metrics.circuit_open.clone())));
    let queue = topology::data_platform(&broker.queue_namespace);
    let watched = monitor.clone();
    subscribe::run(broker, queue, pool, monitor, stop, move |events: Vec<Received>, ours| {
        let (platform, circuit) = (Arc::clone(&platform), Arc::clone(&circuit));
        let monitor = watched.clone();
        async move {
            let mut circuit = circuit.lock().await;
            let sending = send(&platform, &mut circuit, &events, &monitor);
            // Not acknowledged, so they come again: to send them now would be to send them twice.
            ours.run_until_cancelled(sending).await.ok_or(Interrupted("given up".to_owned()))
        }
    })
    .await;
}

/// Sends all events, however long it takes: a platform that is away is not what ails this role. Returns those
/// that the platform refuses.
async fn send(
    platform: &Platform,
    circuit: &mut Circuit,
    events: &[Received],
    monitor: &monitor::Role,
) -> Vec<Undeliverable> {
    let metrics = &monitor.metrics;
    let mut refused = Vec::new();
    // A stack of parts, next one on top. A refusal splits one, down to the event that it is about.
    let mut parts = if events.is_empty() { Vec::new() } else { vec![events] };
    while let Some(part) = parts.pop() {
        // After a pause one event is the probe: a platform that just came back is not flooded.
        let (now, later) = part.split_at(circuit.admits(part.len()));
        monitor.well(platform.timeout() + READY_MARGIN);
        let delay = match platform.deliver(now).await {
            Delivery::Accepted => {
                circuit.succeeded();
                metrics.delivered.inc_by(u64::try_from(now.len()).unwrap_or_default());
                if !later.is_empty() {
                    parts.push(later);
                }
                continue;
            }
            Delivery::Refused(reason) => {
                // It answers, so it is well; it is the content that it minds.
                circuit.succeeded();
                if !later.is_empty() {
                    parts.push(later);
                }
                match now {
                    [received] => {
                        tracing::error!(event = %received.event.id, reason, "the data platform refuses an event, dead-lettering it");
                        metrics.refused.inc();
                        refused.push(Undeliverable { received: received.clone(), reason });
                    }
                    _ => {
                        let (first, second) = now.split_at(now.len() / 2);
                        parts.extend([second, first]);
                    }
                }
                continue;
            }
            Delivery::Failed { reason, retry_after } => {
                let delay = circuit.failed().max(retry_after.unwrap_or_default());
                metrics.failed_deliveries.inc();
                tracing::warn!(
                    reason,
                    ?delay,
                    circuit = circuit.state(),
                    "the data platform did not take the events"
                );
                delay
            }
        };
        parts.push(part);
        monitor.well(delay + READY_MARGIN);
        sleep(delay).await;
    }
    refused
}
