//! Confirmed publishing. The guarantee: what is reported [`Verdict::Confirmed`] is on the disk of
//! a quorum queue and will be delivered at least once; unless it was for [`Address::Anybody`], and nobody listened.

use std::{collections::HashMap, pin::Pin, task::Poll};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use uuid::Uuid;

use crate::connect::SessionError;

/// The media type of every message of ours: a line of JSON per job or event.
const CONTENT_TYPE: &str = "application/x-ndjson";

/// To which queues the broker routes a message.
#[derive(Debug, Clone, Copy)]
pub enum Address<'a> {
    /// One queue, through the default exchange.
    Queue(&'a str),
    /// Every queue that is bound to the exchange for this key.
    Exchange {
        /// The name of the exchange; it must exist.
        exchange: &'a str,
        /// The routing key by which the exchange finds its queues.
        key: &'a str,
    },
    /// The same, be there such a queue or not.
    Anybody {
        /// The name of the exchange; it must exist.
        exchange: &'a str,
        /// The routing key by which the exchange finds its queues.
        key: &'a str,
    },
}

/// What a message is: its AMQP `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    /// A parcel: a line of JSON per job.
    Jobs,
    /// A batch of events: a line of JSON for each.
    Events,
    /// Nothing; who consumes it shows that its line is alive.
    Canary,
    /// Nothing; the last message of a line that is being closed.
    EndOfLine,
}

impl MessageType {
    /// The name on the wire; never changed, since messages outlive deploys.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Events => "events",
            Self::Canary => "canary",
            Self::EndOfLine => "end-of-line",
        }
    }

    /// The type with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Jobs, Self::Events, Self::Canary, Self::EndOfLine];
        all.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Tells canaries apart; never changed, since messages outlive deploys.
const CANARY_HEADER: &str = "x-canary";
/// Tells of a redriven message how often it was tried before; never changed, since messages outlive
/// deploys.
const ATTEMPTS_HEADER: &str = "x-attempts";

/// What a message says of itself besides its type.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers {
    /// The id of a canary, by which its sender knows it again.
    pub canary: Option<Uuid>,
    /// How often it was tried before it was redriven.
    pub attempts: Option<i32>,
}

impl Headers {
    /// Reads the headers of a message that came.
    pub(crate) fn of(properties: &BasicProperties) -> Self {
        let Some(table) = properties.headers() else { return Self::default() };
        let canary = table.inner().get(CANARY_HEADER).and_then(AMQPValue::as_long_string);
        Self {
            canary: canary.and_then(|id| id.to_string().parse().ok()),
            attempts: table.inner().get(ATTEMPTS_HEADER).and_then(AMQPValue::as_long_int),
        }
    }

    fn table(self) -> FieldTable {
        let mut table = FieldTable::default();
        if let Some(id) = self.canary {
            let id = AMQPValue::LongString(id.to_string().into());
            table.insert(CANARY_HEADER.into(), id);
        }
        if let Some(attempts) = self.attempts {
            table.insert(ATTEMPTS_HEADER.into(), AMQPValue::LongInt(attempts));
        }
        table
    }
}

/// What the broker says of a message that was published.
#[derive(Debug)]
pub enum Verdict {
    /// Stored; it will be delivered.
    Confirmed,
    /// Refused by a queue, which is full or cannot write. Not stored there; in others it may be.
    Refused,
    /// No queue of that name. Not stored.
    Unroutable,
    /// The connection was lost before the answer came: stored or not, nobody knows.
    Unknown(SessionError),
}

type InFlight = Pin<Box<dyn Future<Output = (Uuid, lapin::Result<Confirmation>)> + Send>>;

/// Publishes on a channel of its own, and tells for each message what became of it. `T` is what
/// the caller wants back with the verdict.
///
/// One task owns it (`&mut self`): lapin assigns the delivery tag and queues the frame under
/// different locks, so tasks that shared a channel could get each other's confirms. For the same
/// reason every publish is polled once, on the spot, before the next one starts.
pub struct ConfirmedPublisher<T> {
    channel: Channel,
    in_flight: FuturesUnordered<InFlight>,
    tickets: HashMap<Uuid, T>,
}

impl<T> ConfirmedPublisher<T> {
    /// Opens a channel and puts it into confirm mode.
    ///
    /// # Errors
    /// The broker's or the connection's.
    pub async fn open(connection: &Connection) -> Result<Self, SessionError> {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { channel, in_flight: FuturesUnordered::new(), tickets: HashMap::new() })
    }

    /// Sends a message. Does not wait; the verdict comes from [`Self::verdicts`]. Messages to one
    /// queue arrive in the order of these calls.
    pub fn publish(&mut self, address: Address<'_>, kind: MessageType, body: Vec<u8>, ticket: T) {
        self.publish_with(Headers::default(), address, kind, body, ticket);
    }

    /// Sends a message as [`Self::publish`] does, with headers.
    pub fn publish_with(
        &mut self,
        headers: Headers,
        address: Address<'_>,
        kind: MessageType,
        body: Vec<u8>,
        ticket: T,
    ) {
        let message_id = Uuid::new_v4();
        self.tickets.insert(message_id, ticket);
        let channel = self.channel.clone();
        // Mandatory: a message without a queue comes back instead of vanishing.
        let (exchange, routing_key, mandatory) = match address {
            Address::Queue(queue) => ("".into(), queue.into(), true),
            Address::Exchange { exchange, key } => (exchange.into(), key.into(), true),
            Address::Anybody { exchange, key } => (exchange.into(), key.into(), false),
        };
        let mut sending: InFlight = Box::pin(async move {
            let properties = BasicProperties::default()
                .with_message_id(message_id.to_string().into())
                .with_type(kind.as_str().into())
                .with_content_type(CONTENT_TYPE.into())
                .with_headers(headers.table())
                .with_delivery_mode(2); // persistent: confirmed means on disk
            let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
            let sent =
                channel.basic_publish(exchange, routing_key, options, &body, properties).await;
            let confirmation = match sent {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            (message_id, confirmation)
        });
        // The first poll takes the delivery tag and queues all frames without yielding.
        match (&mut sending).now_or_never() {
            Some(done) => self.in_flight.push(Box::pin(std::future::ready(done))),
            None => self.in_flight.push(sending),
        }
    }

    /// Publishes what no queue takes, to a queue that nobody declares, to learn whether the broker takes
    /// anything: of a memory or disk alarm it tells after a publish only, and answers when it is over.
    pub fn probe(&mut self, nowhere: &str, ticket: T) {
        /// Where a body begins the broker stops reading: a message without one it takes, alarm or not.
        const BODY: &[u8] = b"?";
        self.publish(Address::Queue(nowhere), MessageType::Canary, BODY.to_vec(), ticket);
    }

    /// How many messages wait for their verdict.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Waits until at least one verdict is known; pending forever while nothing is in flight.
    /// Cancel-safe.
    pub async fn verdicts(&mut self) -> Vec<(T, Verdict)> {
        if self.in_flight.is_empty() {
            std::future::pending::<()>().await;
        }
        let mut ready = Vec::new();
        std::future::poll_fn(|context| {
            loop {
                match self.in_flight.poll_next_unpin(context) {
                    Poll::Ready(Some(done)) => ready.push(done),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending if ready.is_empty() => return Poll::Pending,
                    Poll::Pending => return Poll::Ready(()),
                }
            }
        })
        .await;

        // The broker returns an unroutable message before it acks it, but lapin hands the return
        // to whichever confirm resolves next: so look at all that resolved together, and match by
        // message id.
        let mut returned = Vec::new();
        let mut judged = Vec::with_capacity(ready.len());
        for (message_id, confirmation) in ready {
            let verdict = match confirmation {
                Ok(Confirmation::Nack(back)) => {
                    returned.extend(back);
                    Verdict::Refused
                }
                Ok(Confirmation::Ack(back)) => {
                    returned.extend(back);
                    Verdict::Confirmed
                }
                Ok(Confirmation::NotRequested) => Verdict::Confirmed,
                Err(error) => Verdict::Unknown(error.into()),
            };
            judged.push((message_id, verdict));
        }
        let mut verdicts = Vec::with_capacity(judged.len());
        for back in returned {
            let id = back.properties.message_id().as_ref().and_then(|id| id.as_str().parse().ok());
            if let Some(ticket) = id.and_then(|id: Uuid| self.tickets.remove(&id)) {
                verdicts.push((ticket, Verdict::Unroutable));
            }
        }
        for (message_id, verdict) in judged {
            // A returned message has its verdict already.
            if let Some(ticket) = self.tickets.remove(&message_id) {
                verdicts.push((ticket, verdict));
            }
        }
        verdicts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_change() {
        let types = ["jobs", "events", "canary", "end-of-line"];
        let known = types.map(|name| MessageType::from_name(name).unwrap().as_str());
        assert_eq!(known, types);
        let id = Uuid::from_u128(7);
        let written = Headers { canary: Some(id), attempts: Some(3) }.table();
        let names: Vec<&str> = written.inner().keys().map(|name| name.as_str()).collect();
        assert_eq!(names, ["x-attempts", "x-canary"]);
        let read = Headers::of(&BasicProperties::default().with_headers(written));
        assert_eq!((read.canary, read.attempts), (Some(id), Some(3)));
    }
}
