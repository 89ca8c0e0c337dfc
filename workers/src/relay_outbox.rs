//! `relay-outbox`: publishes what settling transactions left in the outbox.
//!
//! **Guarantee:** every event reaches the exchange at least once; a duplicate has the same event id.
//! Several relays may run: each takes rows that no other one holds.

use std::{sync::Arc, time::Duration};

use firstcome_shared::{
    broker::{
        BrokerArgs,
        connect::{self, Connection, SessionError},
        publish::{Address, ConfirmedPublisher, MessageType, Verdict},
        topology,
    },
    event::order_completed,
    job::envelope::MAX_PARCEL,
};
use sqlx::{
    Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    database::{answered, give_back},
    monitor::{self, Metrics},
};

/// Events in one transaction.
const BATCH: i64 = 512;
/// How often the outbox is looked at unasked: the backstop for a lost notification.
const SWEEP: Duration = Duration::from_secs(1);
/// How often its backlog is looked at, also while the broker is away: below the interval of scrapes.
const GAUGE_INTERVAL: Duration = Duration::from_secs(2);
/// How long a look at the outbox proves that the role is well: above the bound on the next one.
const LOOK_PROVES: Duration = Duration::from_secs(15);
/// How long the broker may take to confirm a batch.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(10);

/// Relays until `stop`.
pub async fn run(
    broker: BrokerArgs,
    pool: PgPool,
    monitor: monitor::Role,
    stop: CancellationToken,
) {
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
async fn gauge(pool: &PgPool, metrics: &Metrics) {
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
async fn backlog(pool: &PgPool) -> Result<(i64, f64), sqlx::Error> {
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
    let waiting = give_back(pool, connection, waiting)?;
    Ok(waiting.map_or((0, 0.0), |row| (row.events, row.age)))
}

async fn session(
    connection: Arc<Connection>,
    broker: Arc<BrokerArgs>,
    pool: PgPool,
    monitor: &monitor::Role,
    stop: CancellationToken,
) -> Result<(), SessionError> {
    topology::declare(&connection, &broker.queue_namespace).await?;
    let mut publisher = ConfirmedPublisher::open(&connection).await?;
    let exchange = topology::events(&broker.queue_namespace);
    let mut notifications = listen(&pool).await.map_err(database)?;
    while !stop.is_cancelled() {
        // With nothing to publish nobody else would notice.
        if !connection.status().connected() {
            return Err(SessionError::Unusable("the connection is gone".to_owned()));
        }
        let relayed = relay(&pool, &mut publisher, &exchange).await?;
        monitor.well(LOOK_PROVES);
        monitor.metrics.relayed.inc_by(u64::try_from(relayed).unwrap_or_default());
        if relayed == 0 {
            tokio::select! {
                notified = timeout(SWEEP, notifications.recv()) => {
                    if let Ok(Err(error)) = notified {
                        return Err(database(error));
                    }
                }
                () = stop.cancelled() => {}
            }
        }
    }
    Ok(())
}

/// Hears of new events. On a connection of its own, which ends with the session: nobody would notice by
/// waiting for it that it is frozen.
async fn listen(pool: &PgPool) -> Result<PgListener, sqlx::Error> {
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
async fn relay(
    pool: &PgPool,
    publisher: &mut ConfirmedPublisher<Vec<i64>>,
    exchange: &str,
) -> Result<usize, SessionError> {
    let mut connection = pool.acquire().await.map_err(database)?;
    let relayed = relay_on(&mut connection, publisher, exchange).await;
    give_back(pool, connection, relayed)
}

async fn relay_on(
    connection: &mut PgConnection,
    publisher: &mut ConfirmedPublisher<Vec<i64>>,
    exchange: &str,
) -> Result<usize, SessionError> {
    let mut transaction = answered(connection.begin()).await.map_err(database)?;
    // Rows that another relay is publishing are skipped; if it dies, their locks die with it.
    let rows = sqlx::query!(
        "SELECT id, event FROM outbox ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED",
        BATCH
    )
    .fetch_all(&mut *transaction);
    let rows = answered(rows).await.map_err(database)?;
    for parcel in rows.chunks(MAX_PARCEL) {
        let mut body = Vec::new();
        for row in parcel {
            body.extend_from_slice(row.event.as_bytes());
            body.push(b'\n');
        }
        let address = Address::Exchange { exchange, key: order_completed::TYPE };
        publisher.publish(
            address,
            MessageType::Events,
            body,
            parcel.iter().map(|row| row.id).collect(),
        );
    }
    let mut confirmed = Vec::with_capacity(rows.len());
    while publisher.in_flight() > 0 {
        let verdicts = timeout(CONFIRM_DEADLINE, publisher.verdicts()).await;
        for (ids, verdict) in verdicts.map_err(|_| SessionError::Timeout(CONFIRM_DEADLINE))? {
            match verdict {
                Verdict::Confirmed => confirmed.extend(ids),
                // Stays in the outbox; the next session declares queues and tries again.
                Verdict::Refused | Verdict::Unroutable => {
                    return Err(SessionError::Unusable("an event found no queue".to_owned()));
                }
                Verdict::Unknown(error) => return Err(error.into()),
            }
        }
    }
    if !confirmed.is_empty() {
        let deleted = sqlx::query!("DELETE FROM outbox WHERE id = ANY($1)", &confirmed)
            .execute(&mut *transaction);
        answered(deleted).await.map_err(database)?;
    }
    answered(transaction.commit()).await.map_err(database)?;
    Ok(confirmed.len())
}
