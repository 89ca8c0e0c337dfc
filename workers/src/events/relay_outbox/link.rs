//! What the relay publishes with, and which of our queues must get what.

use std::{sync::Arc, time::Duration};

use firstcome_broker::{
    connect::{self, Alarm, Alarms, Connection, SessionError},
    publish::{Address, ConfirmedPublisher, MessageType, Verdict},
    topology,
};
use firstcome_contract::event::EventType;
use tokio::time::{Instant, sleep_until};

/// The longest wait for the broker to confirm a batch; then the session ends.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the data platform's queue is taken for bound as it should be: somebody may unbind it.
const BOUND_TTL: Duration = Duration::from_secs(1);

/// A row of the outbox: events of one type, a line of JSON for each.
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) kind: String,
    pub(super) lines: String,
    pub(super) events: i32,
}

impl Row {
    fn body(&self) -> Vec<u8> {
        format!("{}\n", self.lines).into_bytes()
    }
}

/// A row of the outbox that is, or was, on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) id: i64,
    pub(super) events: i64,
    /// The queues of ours that it belongs in.
    pub(super) ours: Ours,
    /// Straight to these, and to nobody else.
    is_direct: bool,
}

/// What was published.
#[derive(Debug, Clone, Copy)]
enum Ticket {
    /// See [`Link::probe`].
    Probe,
    /// A row that goes straight to our queues: to all but the last one.
    Copy,
    /// A row.
    Row(Sent),
}

/// Which queues of ours get a type of events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ours {
    pub(super) sales_stats: bool,
    pub(super) data_platform: bool,
}

impl Ours {
    /// A type that only a newer release knows belongs in none.
    fn of(kind: &str, asked_for: &[EventType]) -> Self {
        let is = |event: &EventType| event.code() == kind;
        Self {
            sales_stats: topology::COUNTED.iter().any(is),
            data_platform: asked_for.iter().any(is),
        }
    }

    const fn is_any(self) -> bool {
        self.sales_stats || self.data_platform
    }

    fn queues(self, namespace: &str) -> Vec<String> {
        let queues = [
            (self.sales_stats, topology::sales_stats(namespace)),
            (self.data_platform, topology::data_platform(namespace)),
        ];
        queues.into_iter().filter_map(|(gets, queue)| gets.then_some(queue)).collect()
    }
}

/// What a session publishes with.
pub(super) struct Link {
    publisher: ConfirmedPublisher<Ticket>,
    /// Rows that a queue refused which is not ours: those have no bound.
    refused: Vec<i64>,
    alarms: Alarms,
    /// The broker has an alarm: what is under way goes out when it ends.
    is_blocked: bool,
    namespace: String,
    exchange: String,
    /// The name of a queue that does not exist, to which probes go.
    nowhere: String,
    connection: Arc<Connection>,
    asked_for: Arc<Vec<EventType>>,
    /// When the data platform's queue was bound last.
    bound_at: Instant,
}

impl Link {
    /// Makes the queues, and lets each get what it is for.
    pub(super) async fn open(
        connection: Arc<Connection>,
        namespace: &str,
        asked_for: Arc<Vec<EventType>>,
    ) -> Result<Self, SessionError> {
        let alarms = Alarms::of(&connection);
        topology::declare(&connection, namespace).await?;
        topology::bind_data_platform(&connection, namespace, &asked_for).await?;
        Ok(Self {
            publisher: ConfirmedPublisher::open(&connection).await?,
            refused: Vec::new(),
            alarms,
            is_blocked: false,
            namespace: namespace.to_owned(),
            exchange: topology::events(namespace),
            nowhere: format!("{namespace}.probe"),
            connection,
            asked_for,
            bound_at: Instant::now(),
        })
    }

    pub(super) const fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Waits until the broker raises an alarm, or ends one.
    pub(super) async fn alarm(&mut self) -> Result<(), SessionError> {
        let alarm = self.alarms.next().await?;
        self.note(alarm);
        Ok(())
    }

    fn note(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Raised(reason) => {
                tracing::warn!(reason, "the broker blocks publishers, events wait for it");
                self.is_blocked = true;
            }
            Alarm::Cleared => {
                tracing::info!("the broker takes events again");
                self.is_blocked = false;
            }
        }
    }

    /// Whether the broker takes anything.
    pub(super) async fn probe(&mut self) -> Result<(), SessionError> {
        self.publisher.probe(&self.nowhere, Ticket::Probe);
        self.confirmed().await?;
        Ok(())
    }

    /// Binds the data platform's queue anew, now and then: what it did not get is not made up for.
    pub(super) async fn bind(&mut self) -> Result<(), SessionError> {
        if self.bound_at.elapsed() > BOUND_TTL && !self.is_blocked {
            let binding =
                topology::bind_data_platform(&self.connection, &self.namespace, &self.asked_for);
            connect::answered(binding).await?;
            self.bound_at = Instant::now();
        }
        Ok(())
    }

    /// Publishes rows to whoever listens; those that are published, unless the broker has an alarm.
    pub(super) async fn publish(&mut self, rows: &[Row]) -> Result<Vec<Sent>, SessionError> {
        self.refused.clear();
        for row in rows {
            let sent = self.sent(row, false);
            let (exchange, key) = (self.exchange.as_str(), row.kind.as_str());
            let address = if sent.ours.is_any() {
                Address::Exchange { exchange, key }
            } else {
                Address::Anybody { exchange, key }
            };
            self.publisher.publish(address, MessageType::Events, row.body(), Ticket::Row(sent));
        }
        let mut published = self.confirmed().await?;
        if !self.refused.is_empty() && !self.is_blocked {
            let refused = std::mem::take(&mut self.refused);
            let count = refused.len();
            tracing::warn!(count, "a queue refuses what is published; ours get it once more");
            for row in rows.iter().filter(|row| refused.contains(&row.id)) {
                self.publish_to_ours(row);
            }
            published.extend(self.confirmed().await?);
        }
        Ok(published)
    }

    /// Publishes a row to our queues alone. The last one stands for all: an alarm in between would cost the
    /// statistics an event, which the recount finds.
    fn publish_to_ours(&mut self, row: &Row) {
        let sent = self.sent(row, true);
        let queues = sent.ours.queues(&self.namespace);
        for (number, queue) in (1..).zip(&queues) {
            let ticket = if number < queues.len() { Ticket::Copy } else { Ticket::Row(sent) };
            self.publisher.publish(Address::Queue(queue), MessageType::Events, row.body(), ticket);
        }
    }

    fn sent(&self, row: &Row, is_direct: bool) -> Sent {
        let ours = Ours::of(&row.kind, &self.asked_for);
        Sent { id: row.id, events: row.events.into(), ours, is_direct }
    }

    /// Waits for what is under way, unless the broker has an alarm; what of it is published.
    pub(super) async fn confirmed(&mut self) -> Result<Vec<Sent>, SessionError> {
        let mut confirmed = Vec::new();
        let deadline = Instant::now() + CONFIRM_TIMEOUT;
        while self.publisher.in_flight() > 0 && !self.is_blocked {
            tokio::select! {
                verdicts = self.publisher.verdicts() => {
                    for (ticket, verdict) in verdicts {
                        confirmed.extend(judge(ticket, verdict, &mut self.refused)?);
                    }
                }
                alarm = self.alarms.next() => self.note(alarm?),
                () = sleep_until(deadline) => return Err(SessionError::Timeout(CONFIRM_TIMEOUT)),
            }
        }
        Ok(confirmed)
    }
}

/// The row, if it is where it belongs; an error if it is not. One that is to go to our queues alone is noted.
fn judge(
    ticket: Ticket,
    verdict: Verdict,
    refused: &mut Vec<i64>,
) -> Result<Option<Sent>, SessionError> {
    match (ticket, verdict) {
        (Ticket::Row(sent), Verdict::Confirmed) => Ok(Some(sent)),
        (Ticket::Probe, Verdict::Confirmed | Verdict::Unroutable)
        | (Ticket::Copy, Verdict::Confirmed) => Ok(None),
        // Nobody listens, or nobody of ours.
        (Ticket::Row(sent), Verdict::Refused | Verdict::Unroutable) if !sent.ours.is_any() => {
            Ok(Some(sent))
        }
        (Ticket::Row(sent), Verdict::Refused) if !sent.is_direct => {
            refused.push(sent.id);
            Ok(None)
        }
        // Stays in the outbox; the next session declares queues and tries again.
        (_, Verdict::Refused) => {
            let why = "a queue refuses an event: is it full, can its broker write?";
            Err(SessionError::Unusable(why.to_owned()))
        }
        (_, Verdict::Unroutable) => {
            Err(SessionError::Unusable("an event found no queue".to_owned()))
        }
        (_, Verdict::Unknown(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_of_ours_asks_for_needs_no_queue() {
        let asked_for = [EventType::CouponSoldOut];
        for (kind, is_ours) in [
            ("order.completed", true),
            ("order.cancelled", true),
            ("coupon.sold-out", true),
            ("coupon.issued", false),
            ("product.sold-out", false),
            ("of.a-newer-release", false),
        ] {
            let ours = Ours::of(kind, &asked_for);
            assert_eq!(ours.is_any(), is_ours, "{kind}");
            let row = Ticket::Row(Sent { id: 7, events: 2, ours, is_direct: false });
            let done = |verdict| judge(row, verdict, &mut Vec::new()).ok().flatten().is_some();
            assert!(done(Verdict::Confirmed));
            assert_eq!(done(Verdict::Unroutable), !is_ours, "{kind}");
            assert_eq!(done(Verdict::Refused), !is_ours, "{kind}");
        }
        assert!(judge(Ticket::Probe, Verdict::Unroutable, &mut Vec::new()).is_ok());
        assert!(judge(Ticket::Copy, Verdict::Unroutable, &mut Vec::new()).is_err());
    }

    #[test]
    fn what_a_stranger_refuses_goes_to_ours_alone() {
        let ours = Ours { sales_stats: true, data_platform: true };
        let row = |is_direct| Ticket::Row(Sent { id: 7, events: 2, ours, is_direct });
        let mut refused = Vec::new();
        assert!(judge(row(false), Verdict::Refused, &mut refused).is_ok_and(|sent| sent.is_none()));
        assert_eq!(refused, [7]);
        assert!(judge(row(true), Verdict::Refused, &mut refused).is_err());
        assert!(judge(row(false), Verdict::Unroutable, &mut refused).is_err());
        assert_eq!(refused, [7]);
        let queues = ["n.order-completed.sales-stats", "n.order-completed.data-platform"];
        assert_eq!(ours.queues("n"), queues);
        assert_eq!(Ours { sales_stats: false, ..ours }.queues("n"), queues[1..]);
    }
}
