//! What the broker says of the queues that a sale takes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use firstcome_broker::{
    BrokerArgs,
    connect::{self, SessionError},
    depth::{Depth, Gauge},
};
use firstcome_contract::line::Line;
use tokio::time::timeout;

use crate::{events::backlog::event_queues, roles::RoleName};

/// The longest wait for the broker to tell of a queue: one without a leader does not.
const DEPTH_TIMEOUT: Duration = Duration::from_secs(3);

/// The queues, or why the broker does not tell of them.
#[derive(Debug)]
pub(super) struct Queues(Result<HashMap<String, Option<Depth>>, String>);

impl Queues {
    /// Asks for the line's queue, and those of events.
    pub(super) async fn ask(broker: &BrokerArgs, line: Option<Line>) -> Self {
        let line = line.map(|line| line.queue(&broker.queue_namespace));
        let events = event_queues(&broker.queue_namespace).map(|(queue, _)| queue);
        let asked = ask(broker, line.into_iter().chain(events)).await;
        Self(asked.map_err(|error| format!("RabbitMQ does not tell, look at AMQP_URL: {error}")))
    }

    /// How much is in a queue; what to do if it is not there, or nobody knows.
    pub(super) fn depth(&self, queue: &str) -> Result<Depth, String> {
        let queues = self.0.as_ref().map_err(Clone::clone)?;
        let missing =
            || format!("there is no queue {queue}: is QUEUE_NAMESPACE that of the workers?");
        queues.get(queue).copied().flatten().ok_or_else(missing)
    }

    /// How much is in the queue of a role that consumes events.
    pub(super) fn of_role(&self, role: RoleName, namespace: &str) -> Result<Depth, String> {
        let queue = event_queues(namespace).into_iter().find(|(_, consumer)| *consumer == role);
        self.depth(&queue.map(|(queue, _)| queue).unwrap_or_default())
    }
}

async fn ask(
    broker: &BrokerArgs,
    queues: impl Iterator<Item = String>,
) -> Result<HashMap<String, Option<Depth>>, SessionError> {
    let connection = Arc::new(connect::connect(broker, "firstcome-worker preflight").await?);
    let mut gauge = Gauge::open(Arc::clone(&connection)).await?;
    let mut told = HashMap::new();
    for queue in queues {
        let depth = timeout(DEPTH_TIMEOUT, gauge.depth(&queue)).await;
        let depth = depth.map_err(|_| SessionError::Timeout(DEPTH_TIMEOUT))??;
        told.insert(queue, depth);
    }
    connect::close(&connection).await;
    Ok(told)
}
