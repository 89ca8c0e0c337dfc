//! `relay-outbox`: publishes what settling transactions left in the outbox.
//!
//! **Guarantee:** every event reaches the exchange at least once; a duplicate has the same event id.
//! Several relays may run: each takes rows that no other one holds.
//!
//! A broker with a memory or disk alarm is waited for on the connection that it blocks. What was published
//! on it by then goes out when the alarm ends, whatever becomes of us, so nothing is published before a
//! message that nobody is waiting for has shown that the broker takes any.

use std::{sync::Arc, time::Duration};

use firstcome_broker::{
    BrokerArgs,
    connect::{self, Alarm, Alarms, Connection, SessionError},
    publish::{Address, ConfirmedPublisher, MessageType, Verdict},
    topology,
};
use firstcome_contract::{event::order_completed, job::envelope::MAX_PARCEL};
use firstcome_process::database::Pool;
use sqlx::{
    Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::{database::answered, metrics::Metrics, monitor};

/// The most events in one transaction.
const MAX_EVENTS: i64 = 512;
/// Time between two looks at the outbox without a notification, which may be lost.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two looks at the backlog, also while the broker is away: less than between two scrapes.
const GAUGE_INTERVAL: Duration = Duration::from_secs(2);
/// How long the role counts as ready after a look at the outbox: longer than the next look can take.
const READY_TTL: Duration = Duration::from_secs(15);
/// The longest wait for the broker to confirm a batch; then the session ends.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// Publishes events until `stop`, and reconnects as long as it takes.
pub async fn run(broker: BrokerArgs, pool: Pool, monitor: monitor::Role, stop: CancellationToken) {
    let broker = Arc::new(broker);
    let url = broker.amqp_url.clone();
    let gauging = stop.run_until_cancelled(gauge(&pool, &monitor.metrics));
    let relaying = connect::supervise(&url, "firstcome-worker relay-outbox", &stop, |connection| {
        let (broker, pool, stop) = (Arc::clone(&broker), pool.clone(), stop.clone());
        let monitor = monitor.clone();
        async move {
            let ended = session(connection, broker, pool, &monitor, stop).await;
            ended.inspect_err(|error| monitor.ails(error))
        }
    });
    tokio::join!(gauging, relaying);
}

/// Shows how much waits. Not a part of relaying, which may be what stands still.
async fn gauge(pool: &Pool, metrics: &Metrics) {
    let mut ticks = interval(GAUGE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match backlog(pool).await {
            Ok((events, age)) => {
                metrics.outbox_events.set(events);
                metrics.outbox_age.set(age.max(0.0));
            }
            // What was seen last stands; the relay itself says that the database is away.
            Err(error) => tracing::debug!(%error, "backlog of the outbox not read"),
        }
    }
}

/// How many events wait, about, and for how many seconds the first one has.
async fn backlog(pool: &Pool) -> Result<(i64, f64), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    // By the ends of the key, since counting a long outbox takes long. Ids that were never used, of
    // orders that were rolled back, count as well.
    let waiting = sqlx::query!(
        r#"SELECT last.id - first.id + 1 AS "events!",
                  extract(epoch FROM clock_timestamp() - first.created_at)::float8 AS "age!"
           FROM (SELECT id, created_at FROM outbox ORDER BY id LIMIT 1) AS first,
                (SELECT id FROM outbox ORDER BY id DESC LIMIT 1) AS last"#
    );
    let waiting = answered(waiting.fetch_optional(&mut *connection)).await;
    let waiting = connection.judge(Ok(waiting))?;
    Ok(waiting.map_or((0, 0.0), |row| (row.events, row.age)))
}

async fn session(
    connection: Arc<Connection>,
    broker: Arc<BrokerArgs>,
    pool: Pool,
    monitor: &monitor::Role,
    stop: CancellationToken,
) -> Result<(), SessionError> {
    let alarms = Alarms::of(&connection);
    topology::declare(&connection, &broker.queue_namespace).await?;
    let mut link = Link {
        publisher: ConfirmedPublisher::open(&connection).await?,
        alarms,
        is_blocked: false,
        exchange: topology::events(&broker.queue_namespace),
        nowhere: format!("{}.probe", broker.queue_namespace),
    };
    let mut notifications = listen(&pool).await.map_err(database)?;
    while !stop.is_cancelled() {
        // With nothing to publish nobody else would notice.
        if !connection.status().connected() {
            return Err(SessionError::Unusable("the connection is gone".to_owned()));
        }
        if link.is_blocked {
            monitor.ails("the broker has an alarm and takes no events");
            tokio::select! {
                alarm = link.alarms.next() => link.note(alarm?),
                () = stop.cancelled() => {}
            }
            continue;
        }
        let relayed = relay(&pool, &mut link).await?;
        monitor.metrics.relayed.inc_by(u64::try_from(relayed).unwrap_or_default());
        if link.is_blocked {
            continue;
        }
        monitor.well(READY_TTL);
        if relayed == 0 {
            tokio::select! {
                notified = timeout(SWEEP_INTERVAL, notifications.recv()) => {
                    if let Ok(Err(error)) = notified {
                        return Err(database(error));
                    }
                }
                alarm = link.alarms.next() => link.note(alarm?),
                () = stop.cancelled() => {}
            }
        }
    }
    Ok(())
}

/// What a session publishes with.
struct Link {
    publisher: ConfirmedPublisher<Vec<i64>>,
    alarms: Alarms,
    /// The broker has an alarm: what is under way goes out when it ends.
    is_blocked: bool,
    exchange: String,
    /// The name of a queue that does not exist, to which probes go.
    nowhere: String,
}

impl Link {
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

    /// Publishes what comes back, if the broker takes anything: it tells of an alarm after a publish only.
    fn probe(&mut self) {
        /// The broker stops reading where a body begins: without one it would take the message.
        const BODY: &[u8] = b"?";
        let address = Address::Queue(&self.nowhere);
        self.publisher.publish(address, MessageType::Canary, BODY.to_vec(), Vec::new());
    }

    /// Waits for what is under way, unless the broker has an alarm; the ids of what it has.
    async fn confirmed(&mut self) -> Result<Vec<i64>, SessionError> {
        let mut confirmed = Vec::new();
        let deadline = Instant::now() + CONFIRM_TIMEOUT;
        while self.publisher.in_flight() > 0 && !self.is_blocked {
            tokio::select! {
                verdicts = self.publisher.verdicts() => {
                    for (ids, verdict) in verdicts {
                        confirmed.extend(judge(ids, verdict)?);
                    }
                }
                alarm = self.alarms.next() => self.note(alarm?),
                () = sleep_until(deadline) => return Err(SessionError::Timeout(CONFIRM_TIMEOUT)),
            }
        }
        Ok(confirmed)
    }
}

/// The ids of the events that the broker has; an error if it does not have them.
fn judge(ids: Vec<i64>, verdict: Verdict) -> Result<Vec<i64>, SessionError> {
    match verdict {
        Verdict::Confirmed => Ok(ids),
        // The probe.
        Verdict::Unroutable if ids.is_empty() => Ok(ids),
        // Stays in the outbox; the next session declares queues and tries again.
        Verdict::Refused | Verdict::Unroutable => {
            Err(SessionError::Unusable("an event found no queue".to_owned()))
        }
        Verdict::Unknown(error) => Err(error),
    }
}

/// Listens for notifications of new events. On a connection of its own, which ends with the session: nobody
/// would notice by waiting for it that it is frozen.
async fn listen(pool: &Pool) -> Result<PgListener, sqlx::Error> {
    let options = PgConnectOptions::clone(&pool.connect_options());
    let own = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    let mut notifications = answered(PgListener::connect_with(&own)).await?;
    answered(notifications.listen("outbox")).await?;
    Ok(notifications)
}

fn database(error: sqlx::Error) -> SessionError {
    SessionError::Unusable(format!("outbox: {error}"))
}

/// Publishes one batch and deletes what the broker confirmed; how many that were.
async fn relay(pool: &Pool, link: &mut Link) -> Result<usize, SessionError> {
    let mut connection = pool.acquire().await.map_err(database)?;
    let relayed = relay_on(&mut connection, link).await;
    relayed.inspect_err(|_| connection.give_up())
}

async fn relay_on(connection: &mut PgConnection, link: &mut Link) -> Result<usize, SessionError> {
    // What an alarm had kept.
    let late = link.confirmed().await?;
    delete(connection, &late).await?;
    let mut transaction = answered(connection.begin()).await.map_err(database)?;
    // Rows that another relay is publishing are skipped; if it dies, their locks die with it.
    let rows = sqlx::query!(
        "SELECT id, event FROM outbox ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED",
        MAX_EVENTS
    )
    .fetch_all(&mut *transaction);
    let rows = answered(rows).await.map_err(database)?;
    if !rows.is_empty() {
        link.probe();
        link.confirmed().await?;
    }
    // Under an alarm they are another's to take, when there is one that can.
    let rows = if link.is_blocked { Vec::new() } else { rows };
    for parcel in rows.chunks(MAX_PARCEL) {
        let mut body = Vec::new();
        for row in parcel {
            body.extend_from_slice(row.event.as_bytes());
            body.push(b'\n');
        }
        let address = Address::Exchange { exchange: &link.exchange, key: order_completed::TYPE };
        let ids = parcel.iter().map(|row| row.id).collect();
        link.publisher.publish(address, MessageType::Events, body, ids);
    }
    let confirmed = link.confirmed().await?;
    delete(&mut transaction, &confirmed).await?;
    answered(transaction.commit()).await.map_err(database)?;
    Ok(late.len() + confirmed.len())
}

async fn delete(connection: &mut PgConnection, ids: &[i64]) -> Result<(), SessionError> {
    if !ids.is_empty() {
        let deleted =
            sqlx::query!("DELETE FROM outbox WHERE id = ANY($1)", ids).execute(connection);
        answered(deleted).await.map_err(database)?;
    }
    Ok(())
}
