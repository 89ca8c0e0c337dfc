//! `relay-outbox`: publishes what settling transactions left in the outbox.
//!
//! **Guarantee:** every event reaches the exchange at least once; a duplicate has the same event id.
//! Several relays may run: each takes rows that no other one holds. Of events that nobody listens to there is nothing
//! to keep; but one that a queue of ours should get stays until it does. What somebody else's queue refuses, ours get
//! all the same, perhaps twice.
//!
//! A broker with a memory or disk alarm is waited for on the connection that it blocks. What was published
//! on it by then goes out when the alarm ends, whatever becomes of us, so nothing is published before a
//! message that nobody is waiting for has shown that the broker takes any.

mod link;
mod trace;

use std::{sync::Arc, time::Duration};

use firstcome_broker::{
    BrokerArgs,
    connect::{self, Connection, SessionError},
};
use firstcome_contract::event::EventType;
use firstcome_process::{database::Pool, fault_point};
use sqlx::{
    Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgListener},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::backlog;
use crate::{database::answered, metrics::Metrics, monitor, roles::RoleName};
use link::{Link, Row, Sent};

/// The most rows in one transaction. Each is a message, of up to 128 events.
const MAX_ROWS: i64 = 128;
/// About the most events in one transaction: it takes rows until they hold as many.
const MAX_EVENTS: i64 = 2_048;
/// Time between two transactions while less waits than fills one: each has its round trips, however little it relays.
const RELAY_INTERVAL: Duration = Duration::from_millis(20);
/// Time between two looks at the outbox without a notification, which may be lost.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How long the role counts as ready after a look at the outbox: longer than the next look can take.
const READY_TTL: Duration = Duration::from_secs(15);

/// Publishes events until `stop`, and reconnects as long as it takes. The data platform's queue gets those that it
/// asks for.
pub async fn run(
    broker: BrokerArgs,
    pool: Pool,
    asked_for: Vec<EventType>,
    monitor: monitor::Role,
    stop: CancellationToken,
) {
    let (broker, asked_for) = (Arc::new(broker), Arc::new(asked_for));
    let telling = backlog::tell(&broker, &pool, &monitor.metrics, &stop);
    let relaying =
        connect::supervise(&broker, "firstcome-worker relay-outbox", &stop, |connection| {
            let (broker, pool, stop) = (Arc::clone(&broker), pool.clone(), stop.clone());
            let (asked_for, monitor) = (Arc::clone(&asked_for), monitor.clone());
            async move {
                let _connected = monitor.connected();
                let ended = session(connection, broker, asked_for, pool, &monitor, stop).await;
                ended.inspect_err(|error| monitor.ails(error))
            }
        });
    tokio::join!(telling, relaying);
}

async fn session(
    connection: Arc<Connection>,
    broker: Arc<BrokerArgs>,
    asked_for: Arc<Vec<EventType>>,
    pool: Pool,
    monitor: &monitor::Role,
    stop: CancellationToken,
) -> Result<(), SessionError> {
    let mut link = Link::open(Arc::clone(&connection), &broker.queue_namespace, asked_for).await?;
    let mut notifications = listen(&pool).await.map_err(database)?;
    while !stop.is_cancelled() {
        // With nothing to publish nobody else would notice.
        if !connection.status().connected() {
            return Err(SessionError::Unusable("the connection is gone".to_owned()));
        }
        if link.is_blocked() {
            monitor.ails("the broker has an alarm and takes no events");
            tokio::select! {
                noted = link.alarm() => noted?,
                () = stop.cancelled() => {}
            }
            continue;
        }
        let relayed = relay(&pool, &mut link).await?;
        count(&monitor.metrics, &relayed);
        if link.is_blocked() {
            continue;
        }
        monitor.well(READY_TTL);
        let events: i64 = relayed.iter().map(|sent| sent.events).sum();
        if events >= MAX_EVENTS {
            continue;
        }
        if relayed.is_empty() {
            tokio::select! {
                notified = timeout(SWEEP_INTERVAL, notifications.recv()) => {
                    if let Ok(Err(error)) = notified {
                        return Err(database(error));
                    }
                }
                noted = link.alarm() => noted?,
                () = stop.cancelled() => {}
            }
        }
        let _ = timeout(RELAY_INTERVAL, stop.cancelled()).await;
    }
    Ok(())
}

/// Counts what was published.
fn count(metrics: &Metrics, relayed: &[Sent]) {
    for Sent { events, ours, .. } in relayed {
        let events = u64::try_from(*events).unwrap_or_default();
        metrics.relayed.inc_by(events);
        let roles = [
            (ours.sales_stats, RoleName::UpdateSalesStats),
            (ours.data_platform, RoleName::SendToDataPlatform),
        ];
        for (_, role) in roles.into_iter().filter(|(gets, _)| *gets) {
            metrics.routed(role.as_str(), events);
        }
    }
}

/// Listens for notifications of new events. On a connection of its own, which ends with the session: nobody
/// would notice by waiting for it that it is frozen.
async fn listen(pool: &Pool) -> Result<PgListener, sqlx::Error> {
    let options = PgConnectOptions::clone(&pool.connect_options());
    let own = pool.options().clone().max_connections(1).connect_lazy_with(options);
    let mut notifications = answered(PgListener::connect_with(&own)).await?;
    answered(notifications.listen("outbox")).await?;
    Ok(notifications)
}

fn database(error: sqlx::Error) -> SessionError {
    SessionError::Unusable(format!("outbox: {error}"))
}

/// Publishes some rows and deletes those that are published; which these were.
async fn relay(pool: &Pool, link: &mut Link) -> Result<Vec<Sent>, SessionError> {
    let mut connection = pool.acquire().await.map_err(database)?;
    let relayed = relay_on(&mut connection, link).await;
    relayed.inspect_err(|_| connection.give_up())
}

async fn relay_on(
    connection: &mut PgConnection,
    link: &mut Link,
) -> Result<Vec<Sent>, SessionError> {
    // What an alarm had kept.
    let mut relayed = link.confirmed().await?;
    delete(connection, &relayed).await?;
    // Nobody waits for this to be on the disk: what a crash brings back is told again, with the same ids.
    let begun = connection.begin_with("BEGIN; SET LOCAL synchronous_commit = off");
    let mut transaction = answered(begun).await.map_err(database)?;
    // Rows that another relay is publishing are skipped; if it dies, their locks die with it.
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id!", type AS "kind!", event AS "lines!", events AS "events!"
           FROM (SELECT id, type, event, events, sum(events) OVER (ORDER BY id) - events AS before
                 FROM (SELECT id, type, event, events FROM outbox_parcels ORDER BY id LIMIT $1
                       FOR UPDATE SKIP LOCKED) AS locked) AS first
           WHERE before < $2 ORDER BY id"#,
        MAX_ROWS,
        MAX_EVENTS,
    );
    let rows = answered(rows.fetch_all(&mut *transaction)).await.map_err(database)?;
    if !rows.is_empty() {
        link.probe().await?;
        link.bind().await?;
    }
    // Under an alarm they are another's to take, when there is one that can.
    let rows = if link.is_blocked() { Vec::new() } else { rows };
    let published = trace::in_span(&rows, link.publish(&rows)).await?;
    delete(&mut transaction, &published).await?;
    answered(transaction.commit()).await.map_err(database)?;
    relayed.extend(published);
    Ok(relayed)
}

async fn delete(connection: &mut PgConnection, sent: &[Sent]) -> Result<(), SessionError> {
    let ids: Vec<i64> = sent.iter().map(|sent| sent.id).collect();
    if !ids.is_empty() {
        fault_point::pass(fault_point::RELAYED);
        let deleted =
            sqlx::query!("DELETE FROM outbox_parcels WHERE id = ANY($1)", &ids).execute(connection);
        answered(deleted).await.map_err(database)?;
    }
    Ok(())
}
