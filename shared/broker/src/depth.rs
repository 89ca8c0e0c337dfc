//! How long a line is, as the broker sees it.

use std::sync::Arc;

use lapin::{Channel, Connection, options::QueueDeclareOptions, types::FieldTable};

use crate::connect::SessionError;

/// How much waits in a queue, and for how many consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that no consumer has been given yet.
    pub ready: u32,
    /// Consumers, whether active or standing by.
    pub consumers: u32,
}

/// Looks at queues. On a connection that does not publish: one that a memory alarm blocks would not
/// answer.
#[derive(Debug)]
pub struct Gauge {
    connection: Arc<Connection>,
    channel: Channel,
}

impl Gauge {
    /// Looks through a channel of its own.
    ///
    /// # Errors
    /// The broker's or the connection's.
    pub async fn open(connection: Arc<Connection>) -> Result<Self, SessionError> {
        let channel = connection.create_channel().await?;
        Ok(Self { connection, channel })
    }

    /// The depth of a queue; `None` if there is no such queue.
    ///
    /// # Errors
    /// The connection's.
    pub async fn depth(&mut self, queue: &str) -> Result<Option<Depth>, SessionError> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match self.channel.queue_declare(queue.into(), passive, FieldTable::default()).await {
            Ok(found) => {
                let (ready, consumers) = (found.message_count(), found.consumer_count());
                Ok(Some(Depth { ready, consumers }))
            }
            // 404 closes the channel, and nothing else.
            Err(error) if self.connection.status().connected() => {
                tracing::debug!(queue, %error, "no depth");
                self.channel = self.connection.create_channel().await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
