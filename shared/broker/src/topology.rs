//! Every exchange, queue and argument, each with its reason.
//!
//! Redeclaring with other arguments is a 406 from the broker, so a change here is a migration.

use std::time::Duration;

use lapin::{
    Channel, Connection, ExchangeKind,
    options::{
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;

use crate::connect::SessionError;
use firstcome_contract::{
    event::EventType,
    family::Family,
    line::{Line, Naming},
};

/// How often a message may come back before the broker sets it aside. Every lost connection and
/// every killed worker counts once for all that it held, so the limit is far above what a bad day
/// does to innocent jobs, and only stops a message that brings every process down that reads it.
pub const DELIVERY_LIMIT: i32 = 1_000;

/// Messages of a line that the broker may push ahead to its consumer: parcels for up to eight full
/// batches in a storm. Bounds the memory of a line (a parcel has some 64 KiB at most), and what a lost connection
/// redelivers.
pub const PREFETCH: u16 = 256;

/// How long the broker may take to make one line again; it does in milliseconds, unless its queue has no
/// leader.
const MEND_TIMEOUT: Duration = Duration::from_secs(2);

/// The direct exchanges for the jobs of a family; the routing key is a line's, see
/// [`Line::routing_key`]. Only current lines are bound: a publisher that missed a change of
/// the routing gets its messages back instead of putting them into a line that is being closed.
///
/// The last one is that of the release before this one, whose APIs know no other.
#[must_use]
pub fn exchanges(namespace: &str, family: Family) -> [String; 2] {
    [Naming::Family, Naming::Kind].map(|naming| naming.exchange(namespace, family))
}

/// The line under its former name: a worker of the release before this one, where a deployment is rolled back, makes
/// such a queue beside the real one, and binds it.
fn twin(line: Line) -> Option<Line> {
    let former = Line { naming: Naming::Kind, ..line };
    (former != line).then_some(former)
}

/// The exchanges from which the line is reached. One that is named in the former way is known there only: nobody else
/// publishes to it, and who bound it may know no other.
fn sources(namespace: &str, line: Line) -> Vec<String> {
    match line.naming {
        Naming::Family => exchanges(namespace, line.family).into(),
        Naming::Kind => vec![line.exchange(namespace)],
    }
}

/// The exchange and the queue for messages that the broker itself gives up on.
#[must_use]
pub fn dead_letters(namespace: &str) -> String {
    format!("{namespace}.dead-letters")
}

/// The topic exchange for events; the routing key is the event's type.
#[must_use]
pub fn events(namespace: &str) -> String {
    format!("{namespace}.events")
}

/// What the sales statistics count.
pub const COUNTED: [EventType; 2] = [EventType::OrderCompleted, EventType::OrderCancelled];

/// The queue in which the events of orders wait to be counted. It is named after what it held first: running
/// systems have it.
#[must_use]
pub fn sales_stats(namespace: &str) -> String {
    format!("{namespace}.order-completed.sales-stats")
}

/// The queue in which events wait for the data platform: those that it asks for, see [`bind_data_platform`].
#[must_use]
pub fn data_platform(namespace: &str) -> String {
    format!("{namespace}.order-completed.data-platform")
}

/// The names of all queues of ours that get events.
#[must_use]
pub fn event_queues(namespace: &str) -> [String; 2] {
    [sales_stats(namespace), data_platform(namespace)]
}

/// Declares everything but the lines, and binds it but for the data platform's queue, of which the relay knows what it is to
/// get; idempotent. Whoever connects first creates it.
///
/// # Errors
/// The broker's refusal: 406 if something of that name exists with other arguments.
pub async fn declare(connection: &Connection, namespace: &str) -> Result<(), SessionError> {
    let channel = &connection.create_channel().await?;
    // Durable: it must be there after a restart, or at-least-once dead-lettering would hold its
    // messages back forever.
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    // First: no queue that does not answer keeps the lines waiting for it.
    for exchange in Family::ALL.into_iter().flat_map(|family| exchanges(namespace, family)) {
        channel
            .exchange_declare(exchange.into(), ExchangeKind::Direct, durable, FieldTable::default())
            .await?;
    }

    let dead_letters = dead_letters(namespace);
    channel
        .exchange_declare(
            dead_letters.as_str().into(),
            ExchangeKind::Fanout,
            durable,
            FieldTable::default(),
        )
        .await?;
    let mut arguments = FieldTable::default();
    // Quorum: a confirmed message survives a crash (Raft log, fsync), on one node and on several.
    arguments.insert("x-queue-type".into(), text("quorum"));
    // In practice none: RabbitMQ 4 would drop what came back 20 times, and here is nowhere else for
    // it to go.
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(i32::MAX));
    declare_queue(channel, &dead_letters, arguments).await?;
    channel
        .queue_bind(
            dead_letters.as_str().into(),
            dead_letters.as_str().into(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;

    // Topic: who listens is the listener's business, now and later.
    let events = events(namespace);
    channel
        .exchange_declare(
            events.as_str().into(),
            ExchangeKind::Topic,
            durable,
            FieldTable::default(),
        )
        .await?;
    for queue in event_queues(namespace) {
        // Unbounded on purpose: a consumer that is away for long must not lose an event, nor hold
        // up the others by refusing it. Messages lie on the disk.
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("quorum"));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
        // What exceeds the limit is set aside where somebody looks, not dropped.
        arguments.insert("x-dead-letter-exchange".into(), text(&dead_letters));
        declare_queue(channel, &queue, arguments).await?;
    }
    let queue = sales_stats(namespace);
    for counted in COUNTED {
        bind_to_event(channel, &queue, &events, counted).await?;
    }
    Ok(channel.close(200, "declared".into()).await?)
}

/// Lets the data platform's queue get events of these types from now on, and of no others; idempotent. For the relay, which
/// does it before it publishes: so nothing is lost until somebody consumes, and whoever does not know what the platform
/// asks for leaves it as it is.
///
/// # Errors
/// The broker's; 404 if the queue or the exchange is not there.
pub async fn bind_data_platform(
    connection: &Connection,
    namespace: &str,
    asked_for: &[EventType],
) -> Result<(), SessionError> {
    let channel = &connection.create_channel().await?;
    let (queue, events) = (data_platform(namespace), events(namespace));
    for event in EventType::ALL {
        if asked_for.contains(&event) {
            bind_to_event(channel, &queue, &events, event).await?;
            continue;
        }
        let unbound = channel.queue_unbind(
            queue.as_str().into(),
            events.as_str().into(),
            event.code().into(),
            FieldTable::default(),
        );
        unbound.await?;
    }
    Ok(channel.close(200, "bound".into()).await?)
}

async fn bind_to_event(
    channel: &Channel,
    queue: &str,
    exchange: &str,
    event: EventType,
) -> Result<(), SessionError> {
    let bound = channel.queue_bind(
        queue.into(),
        exchange.into(),
        event.code().into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    Ok(bound.await?)
}

/// The lines of jobs in the broker: made, opened to publishers and closed again by whoever changes
/// the routing.
#[derive(Debug)]
pub struct Lines<'a> {
    channel: Channel,
    namespace: &'a str,
}

impl<'a> Lines<'a> {
    /// Works on a channel of its own.
    ///
    /// # Errors
    /// The broker's.
    pub async fn open(connection: &Connection, namespace: &'a str) -> Result<Self, SessionError> {
        Ok(Self { channel: connection.create_channel().await?, namespace })
    }

    /// Makes the queue, for at most so many messages; idempotent.
    ///
    /// # Errors
    /// The broker's refusal: 406 if it exists with other arguments.
    pub async fn declare(&self, line: Line, capacity: i32) -> Result<(), SessionError> {
        let arguments = line_arguments(&dead_letters(self.namespace), capacity);
        declare_queue(&self.channel, &line.queue(self.namespace), arguments).await
    }

    /// Puts right what is missing of it; idempotent. Binding a line that takes jobs shows whether its queue
    /// is there, and asks nothing of the queue itself: one without a leader would not answer.
    ///
    /// # Errors
    /// What is wrong with this line, unless the connection is lost.
    pub async fn mend(
        &mut self,
        connection: &Connection,
        line: Line,
        capacity: i32,
        takes_jobs: bool,
    ) -> Result<(), SessionError> {
        let mended = timeout(MEND_TIMEOUT, async {
            if takes_jobs && self.bind(line).await.is_ok() {
                return Ok(());
            }
            // 404 closes the channel.
            if !self.channel.status().connected() {
                self.channel = connection.create_channel().await?;
            }
            self.declare(line, capacity).await?;
            if takes_jobs { self.bind(line).await } else { self.unbind(line).await }
        });
        let mended = mended.await.unwrap_or(Err(SessionError::Timeout(MEND_TIMEOUT)));
        if mended.is_err() {
            // Refused, or still waiting for its answer: the next line gets another one.
            self.channel = connection.create_channel().await?;
        }
        mended
    }

    /// Lets publishers reach it; idempotent.
    ///
    /// # Errors
    /// The broker's.
    pub async fn bind(&self, line: Line) -> Result<(), SessionError> {
        for exchange in sources(self.namespace, line) {
            let bound = self.channel.queue_bind(
                line.queue(self.namespace).into(),
                exchange.into(),
                line.routing_key().into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            bound.await?;
        }
        Ok(())
    }

    /// From now on publishers get their messages back; idempotent.
    ///
    /// # Errors
    /// The broker's.
    pub async fn unbind(&self, line: Line) -> Result<(), SessionError> {
        // First the one from which nobody consumes: what is routed to it is routed to the real one as well.
        for line in twin(line).into_iter().chain([line]) {
            for exchange in sources(self.namespace, line) {
                let unbound = self.channel.queue_unbind(
                    line.queue(self.namespace).into(),
                    exchange.into(),
                    line.routing_key().into(),
                    FieldTable::default(),
                );
                unbound.await?;
            }
        }
        Ok(())
    }

    /// Deletes the queue with all that is in it; idempotent.
    ///
    /// # Errors
    /// The broker's.
    pub async fn delete(&self, line: Line) -> Result<(), SessionError> {
        for line in twin(line).into_iter().chain([line]) {
            let queue = line.queue(self.namespace);
            // Quorum queues know no if-empty: the caller has looked.
            self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
        }
        Ok(())
    }

    /// Done with it.
    ///
    /// # Errors
    /// The broker's.
    pub async fn close(self) -> Result<(), SessionError> {
        Ok(self.channel.close(200, "done".into()).await?)
    }
}

/// Deletes everything that [`declare`] made, and these lines, with all that is in it: for tests and
/// demos, whose namespaces are theirs alone.
///
/// # Errors
/// The broker's.
pub async fn delete(
    connection: &Connection,
    namespace: &str,
    lines: impl IntoIterator<Item = Line>,
) -> Result<(), SessionError> {
    let channel = connection.create_channel().await?;
    for line in lines {
        channel.queue_delete(line.queue(namespace).into(), QueueDeleteOptions::default()).await?;
    }
    for exchange in Family::ALL.into_iter().flat_map(|family| exchanges(namespace, family)) {
        channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await?;
    }
    for queue in event_queues(namespace) {
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
    }
    channel.exchange_delete(events(namespace).into(), ExchangeDeleteOptions::default()).await?;
    let dead_letters = dead_letters(namespace);
    channel.queue_delete(dead_letters.as_str().into(), QueueDeleteOptions::default()).await?;
    channel.exchange_delete(dead_letters.into(), ExchangeDeleteOptions::default()).await?;
    Ok(channel.close(200, "deleted".into()).await?)
}

fn line_arguments(dead_letters: &str, capacity: i32) -> FieldTable {
    let mut arguments = FieldTable::default();
    // See above; and on one node quorum queues beat classic ones with confirms.
    arguments.insert("x-queue-type".into(), text("quorum"));
    // A seat belt, not the lock: one consumer at a time keeps the line's order. Correctness is
    // PostgreSQL's.
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    // Explicit, because the default differs: none before RabbitMQ 4.0, 20 since.
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
    // A full line refuses new messages (nack → 503) instead of dropping accepted ones.
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(capacity));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    // What exceeds the delivery limit is set aside, never dropped: at-least-once keeps it in the
    // line until the dead-letter queue has confirmed it.
    arguments.insert("x-dead-letter-exchange".into(), text(dead_letters));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments
}

async fn declare_queue(
    channel: &Channel,
    name: &str,
    arguments: FieldTable,
) -> Result<(), SessionError> {
    // Durable and neither exclusive nor auto-delete: lines outlive their consumers.
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.into(), options, arguments).await?;
    Ok(())
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
