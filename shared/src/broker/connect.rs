//! Connections under our own supervision.
//!
//! lapin's auto-recovery is deliberately not used: a recovered consumer gets no signal and stale
//! acks return `Ok(false)`. Instead a session owns a fresh connection; whatever goes wrong in it
//! ends it, and the next session rebuilds connection, channels and topology.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt};
use lapin::{ConnectionProperties, Event, uri::AMQPUri};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::retry::Retry;

pub use lapin::Connection;

/// Bound on TCP connect plus AMQP handshake, and on a clean close.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// A broker that is silent for twice this is gone; it looks itself once per interval, and lets go of a
/// silent connection and its lines after two to three. RabbitMQ's own default of 60 s would leave
/// them with a worker that hangs for three minutes; less than this takes a busy machine for a dead
/// one.
const HEARTBEAT_SECONDS: u16 = 4;
/// How long a session may take to end once it was told to: a batch in hand has 10 s.
const STOP_DEADLINE: Duration = Duration::from_secs(12);
/// A session that lasted this long was healthy: its loss starts with the shortest delay again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// What ends a session early.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// lapin or the broker said so.
    #[error(transparent)]
    Broker(#[from] lapin::Error),
    /// The broker did not answer in time.
    #[error("no answer from the broker within {0:?}")]
    Timeout(Duration),
    /// Anything else that makes the connection unusable for its purpose.
    #[error("{0}")]
    Unusable(String),
}

/// Opens one connection.
///
/// # Errors
/// [`SessionError`] if the URL is malformed or the broker does not complete the handshake in time.
pub async fn connect(url: &str, name: &str) -> Result<Connection, SessionError> {
    let mut uri: AMQPUri =
        url.parse().map_err(|error| SessionError::Unusable(format!("AMQP_URL: {error}")))?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    timeout(HANDSHAKE_DEADLINE, Connection::connect_uri(uri, properties))
        .await
        .map_err(|_| SessionError::Timeout(HANDSHAKE_DEADLINE))?
        .map_err(SessionError::from)
}

/// Runs `session` on one connection after the other until `cancel`. A session returns `Ok` when
/// it stopped because of `cancel`, and an error when it needs a new connection.
pub async fn supervise<F>(
    url: &str,
    name: &str,
    cancel: &CancellationToken,
    mut session: impl FnMut(Arc<Connection>) -> F,
) where
    F: Future<Output = Result<(), SessionError>>,
{
    let mut retry = Retry::reconnect();
    while !cancel.is_cancelled() {
        let started = Instant::now();
        let ended = tokio::select! {
            biased;
            connected = connect(url, name) => match connected {
                Ok(connection) => {
                    tracing::info!(connection = name, "connected to the broker");
                    let connection = Arc::new(connection);
                    // Whatever a broker that no longer answers keeps a session waiting for.
                    let ended = tokio::select! {
                        ended = session(Arc::clone(&connection)) => ended,
                        () = overdue(cancel) => {
                            Err(SessionError::Unusable("it did not end in time".to_owned()))
                        }
                    };
                    close(&connection).await;
                    ended
                }
                Err(error) => Err(error),
            },
            () = cancel.cancelled() => Ok(()),
        };
        let Err(error) = ended else { continue };
        if started.elapsed() > HEALTHY_AFTER {
            retry.reset();
        }
        let delay = retry.next_delay();
        tracing::warn!(connection = name, %error, ?delay, "broker connection lost or refused, retrying");
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = cancel.cancelled() => {}
        }
    }
}

/// Some time after `cancel`.
async fn overdue(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(STOP_DEADLINE).await;
}

/// Closes with a handshake, so that the broker requeues at once and does not log an error.
pub async fn close(connection: &Connection) {
    if connection.status().connected() {
        // A broker that does not answer is left to notice by itself.
        let _ = timeout(HANDSHAKE_DEADLINE, connection.close(200, "bye".into())).await;
    }
}

/// What the broker says about a connection unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// It takes no more messages (memory or disk alarm): lapin's publishes hang from now on, and go
    /// out when it ends.
    Raised(String),
    /// It takes messages again.
    Cleared,
}

/// The alarms of a connection.
pub struct Alarms(std::pin::Pin<Box<dyn Stream<Item = Event> + Send>>);

impl Alarms {
    /// Listens from now on.
    #[must_use]
    pub fn of(connection: &Connection) -> Self {
        Self(Box::pin(connection.events_listener()))
    }

    /// The next alarm. Cancel-safe.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn next(&mut self) -> Result<Alarm, SessionError> {
        loop {
            match self.0.next().await {
                Some(Event::ConnectionBlocked(reason)) => return Ok(Alarm::Raised(reason)),
                Some(Event::ConnectionUnblocked) => return Ok(Alarm::Cleared),
                Some(Event::Error(error)) => return Err(error.into()),
                Some(_) => {}
                None => return Err(SessionError::Unusable("the connection is gone".to_owned())),
            }
        }
    }
}
