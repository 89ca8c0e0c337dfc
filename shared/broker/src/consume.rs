//! Consuming: the broker pushes messages ahead, and each is its own until it is acknowledged.

use std::hash::{DefaultHasher, Hash, Hasher};

use futures_util::{FutureExt, StreamExt};
use lapin::{
    Acker, Channel, Connection,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    connect::{SessionError, answered},
    publish::{Headers, MessageType},
};

/// Where the broker notes in which queue it gave up on a message.
const DIED_IN_HEADER: &str = "x-first-death-queue";

/// Why a consumer has ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// It concerns this queue alone; the channel is closed.
    #[error(transparent)]
    Queue(SessionError),
    /// The connection is of no use any more.
    #[error(transparent)]
    Connection(SessionError),
}

impl From<ConsumeError> for SessionError {
    fn from(error: ConsumeError) -> Self {
        match error {
            ConsumeError::Queue(error) | ConsumeError::Connection(error) => error,
        }
    }
}

/// Consumes one queue on a channel of its own. Whatever happens, it is to be [closed](Self::close).
pub struct Consumer<'a> {
    connection: &'a Connection,
    channel: Channel,
    messages: lapin::Consumer,
}

impl<'a> Consumer<'a> {
    /// Begins to consume; the broker may push `prefetch` messages ahead.
    ///
    /// # Errors
    /// [`ConsumeError`], within some seconds.
    pub async fn open(
        connection: &'a Connection,
        queue: &str,
        prefetch: u16,
    ) -> Result<Self, ConsumeError> {
        let channel = answered(connection.create_channel()).await;
        let channel = channel.map_err(ConsumeError::Connection)?;
        match subscribe(&channel, queue, prefetch).await {
            Ok(messages) => Ok(Self { connection, channel, messages }),
            Err(error) => {
                close(connection, &channel).await?;
                Err(ConsumeError::Queue(error))
            }
        }
    }

    /// Waits for a message, then takes what else is already there, until `add` says that it is enough.
    /// `false` on `stop`, with nothing taken. Cancel-safe.
    ///
    /// # Errors
    /// When nothing more will come.
    pub async fn next_batch(
        &mut self,
        stop: &CancellationToken,
        mut add: impl FnMut(Received) -> bool,
    ) -> Result<bool, SessionError> {
        let first = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(false),
            delivery = self.messages.next() => received(delivery)?,
        };
        if !add(first) {
            self.drain(add)?;
        }
        Ok(true)
    }

    /// Takes what is already there, until `add` says that it is enough.
    ///
    /// # Errors
    /// When nothing more will come.
    pub fn drain(&mut self, mut add: impl FnMut(Received) -> bool) -> Result<(), SessionError> {
        while let Some(delivery) = self.messages.next().now_or_never() {
            if add(received(delivery)?) {
                break;
            }
        }
        Ok(())
    }

    /// Gives back what is not acknowledged, at the head of the queue and in order. The channel is closed
    /// before the consumer is dropped, which sends `basic.cancel`: that would let the next one start while
    /// messages of this one are still unacknowledged.
    ///
    /// # Errors
    /// [`ConsumeError`], within some seconds, if the broker does not answer.
    pub async fn close(self) -> Result<(), ConsumeError> {
        close(self.connection, &self.channel).await
    }
}

async fn subscribe(
    channel: &Channel,
    queue: &str,
    prefetch: u16,
) -> Result<lapin::Consumer, SessionError> {
    // Per consumer, not global: RabbitMQ 4.3 denies global prefetch.
    answered(channel.basic_qos(prefetch, BasicQosOptions { global: false })).await?;
    // Manual acks: a message is the broker's until its batch is committed.
    let options = BasicConsumeOptions { no_ack: false, ..BasicConsumeOptions::default() };
    answered(channel.basic_consume(queue.into(), "".into(), options, FieldTable::default())).await
}

/// Closes a channel. One that the broker does not answer is its queue's trouble as long as it answers
/// another one: under an alarm a queue may not be consumed from.
async fn close(connection: &Connection, channel: &Channel) -> Result<(), ConsumeError> {
    let Err(silence) = close_channel(channel).await else { return Ok(()) };
    let other = answered(connection.create_channel()).await.map_err(ConsumeError::Connection)?;
    close_channel(&other).await.map_err(ConsumeError::Connection)?;
    Err(ConsumeError::Queue(silence))
}

/// Whatever the broker says of it, it is closed; unless the broker says nothing.
async fn close_channel(channel: &Channel) -> Result<(), SessionError> {
    if channel.status().connected()
        && let Err(silence @ SessionError::Timeout(_)) =
            answered(channel.close(200, "handing over".into())).await
    {
        return Err(silence);
    }
    Ok(())
}

fn received(delivery: Option<lapin::Result<Delivery>>) -> Result<Received, SessionError> {
    let gone = || SessionError::Unusable("the broker cancelled the consumer".to_owned());
    Ok(Received::from(delivery.ok_or_else(gone)??))
}

/// A message that was delivered, and is redelivered unless its receipt is acknowledged.
#[derive(Debug)]
pub struct Received {
    /// What identifies it across redeliveries.
    pub id: String,
    /// What it is; `None` for what none of our publishers sends.
    pub kind: Option<MessageType>,
    /// Which canary it is; those of older releases do not say.
    pub canary: Option<Uuid>,
    /// How often it was tried before it was redriven.
    pub attempts: i32,
    /// Where the broker gave up on it, if it did.
    pub died_in: Option<String>,
    /// The records of the message: a line of JSON for each.
    pub body: Vec<u8>,
    /// What acknowledges the message, once its records are settled.
    pub receipt: Receipt,
}

impl From<Delivery> for Received {
    fn from(delivery: Delivery) -> Self {
        let Delivery { properties, data, acker, .. } = delivery;
        let id = match properties.message_id() {
            Some(id) => storable(id.as_str()),
            // Not from our publisher: its content must do.
            None => {
                let mut content = DefaultHasher::new();
                data.hash(&mut content);
                format!("unnamed-{:016x}", content.finish())
            }
        };
        let Headers { canary, attempts } = Headers::of(&properties);
        let headers = properties.headers().as_ref();
        let died_in = headers.and_then(|headers| headers.inner().get(DIED_IN_HEADER));
        let died_in = died_in.and_then(|queue| queue.as_long_string());
        Self {
            id,
            kind: properties.kind().as_ref().and_then(|name| MessageType::from_name(name.as_str())),
            canary,
            // Ours is never negative; a foreign one might be.
            attempts: attempts.unwrap_or_default().max(0),
            died_in: died_in.map(|queue| storable(&queue.to_string())),
            body: data,
            receipt: Receipt(acker),
        }
    }
}

/// PostgreSQL's text holds no NUL; what others send might.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// What acknowledges a message and all that came before it.
#[derive(Debug, Clone)]
pub struct Receipt(Acker);

impl Receipt {
    /// Acknowledges the message and all before it: they are done, and will not come again. While the
    /// broker has an alarm, this may wait for as long.
    ///
    /// # Errors
    /// When the message is no longer ours: it comes again.
    pub async fn acknowledge(&self) -> Result<(), SessionError> {
        if self.0.ack(BasicAckOptions { multiple: true }).await? {
            Ok(())
        } else {
            Err(SessionError::Unusable("acknowledgement on a channel that is gone".to_owned()))
        }
    }

    /// Whether the message is still ours. The broker closes the channel of who acknowledges nothing for its
    /// `consumer_timeout`, and a connection may be lost.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.0.poisoned()
    }
}

#[cfg(test)]
mod tests {
    use lapin::{BasicProperties, types::AMQPValue};

    use super::*;

    fn foreign(properties: BasicProperties) -> Received {
        let mut delivery = Delivery::mock(1, "".into(), "".into(), false, b"{}\n".to_vec());
        delivery.properties = properties;
        Received::from(delivery)
    }

    #[test]
    fn what_others_send_is_read_as_far_as_it_makes_sense() {
        let mut headers = FieldTable::default();
        headers.insert("x-attempts".into(), AMQPValue::LongInt(-1));
        headers.insert("x-first-death-queue".into(), AMQPValue::LongString("a\0b".into()));
        headers.insert("x-canary".into(), AMQPValue::LongString("none".into()));
        let properties = BasicProperties::default().with_headers(headers);
        let properties = properties.with_message_id("c\0d".into()).with_type("letters".into());
        let received = foreign(properties);
        assert_eq!(
            (received.id.as_str(), received.kind, received.canary),
            ("c\u{fffd}d", None, None)
        );
        assert_eq!((received.attempts, received.died_in.as_deref()), (0, Some("a\u{fffd}b")));
    }

    #[test]
    fn a_message_without_an_id_is_known_by_its_content() {
        let (first, again) =
            (foreign(BasicProperties::default()), foreign(BasicProperties::default()));
        assert!(first.id.starts_with("unnamed-") && first.id == again.id, "{}", first.id);
    }
}
