//! Connections under our own supervision.
//!
//! lapin's auto-recovery is deliberately not used: a recovered consumer gets no signal and stale
//! acks return `Ok(false)`. Instead a session owns a fresh connection; whatever goes wrong in it
//! ends it, and the next session rebuilds connection, channels and topology.

use std::{
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt};
use lapin::{
    AsyncTcpStream, ConnectionProperties, ErrorKind, Event, runtime,
    uri::{AMQPScheme, AMQPUri},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::{Host, Url};

use crate::{BrokerArgs, retry::Retry, tls::TlsArgs};

pub use lapin::Connection;

/// Bound on TCP connect plus AMQP handshake, and on a clean close.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A broker that is silent for twice this is gone; it looks itself once per interval, and lets go of a
/// silent connection and its lines after two to three. RabbitMQ's own default of 60 s would leave
/// them with a worker that hangs for three minutes; less than this takes a busy machine for a dead
/// one.
const HEARTBEAT_SECONDS: u16 = 4;
/// How long the broker may take to answer; it does in milliseconds, unless it is about to lose us.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a session may take to end once it was told to: a batch in hand has 10 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(12);
/// A session that lasted this long was healthy: its loss starts with the shortest delay again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// What ends a session early.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// lapin gave up, or the broker closed the channel or the connection.
    #[error(transparent)]
    Broker(#[from] lapin::Error),
    /// The broker did not answer in time.
    #[error("no answer from the broker within {0:?}")]
    Timeout(Duration),
    /// Anything else that makes the connection unusable for its purpose.
    #[error("{0}")]
    Unusable(String),
}

impl SessionError {
    /// Whether the broker failed at something that it was asked for on the connection, and ended it.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        const INTERNAL_ERROR: u16 = 541;
        match self {
            Self::Broker(error) => matches!(
                error.kind(),
                ErrorKind::ProtocolError(error) if error.get_id() == INTERNAL_ERROR
            ),
            Self::Timeout(_) | Self::Unusable(_) => false,
        }
    }
}

/// What the broker says, if it says it in time.
///
/// # Errors
/// The answer's, or [`SessionError::Timeout`].
pub async fn answered<T, E>(answer: impl Future<Output = Result<T, E>>) -> Result<T, SessionError>
where
    SessionError: From<E>,
{
    let answer = timeout(ANSWER_TIMEOUT, answer).await;
    Ok(answer.map_err(|_| SessionError::Timeout(ANSWER_TIMEOUT))??)
}

/// The nodes of a broker, as `AMQP_URL` lists them.
///
/// # Errors
/// A malformed URL, which is not shown: it holds a password.
pub(crate) fn nodes(urls: &str) -> Result<Vec<AMQPUri>, String> {
    // A comma may stand within a URL; one that begins another is followed by its scheme.
    let mut nodes: Vec<String> = Vec::new();
    for piece in urls.split(',') {
        match nodes.last_mut() {
            Some(url) if !piece.trim_start().starts_with("amqp") => {
                url.push(',');
                url.push_str(piece);
            }
            _ => nodes.push(piece.to_owned()),
        }
    }
    nodes.iter().map(|url| node(url.trim())).collect()
}

fn node(text: &str) -> Result<AMQPUri, String> {
    let malformed =
        |error: String| if error.contains(text) { "it is no URL".to_owned() } else { error };
    let mut uri: AMQPUri = text.parse().map_err(malformed)?;
    // It reads every IPv6 address as "localhost".
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if let Some(Host::Ipv6(address)) = url.host() {
        uri.authority.host = address.to_string();
    }
    Ok(uri)
}

/// Opens one connection, to the first node of the broker that takes it.
///
/// # Errors
/// [`SessionError`] if a URL is malformed or no node completes the handshake in time.
pub async fn connect(broker: &BrokerArgs, name: &str) -> Result<Connection, SessionError> {
    let socket = Socket::default();
    open(broker, name, &socket).await.inspect_err(|_| socket.shut())
}

async fn open(
    broker: &BrokerArgs,
    name: &str,
    socket: &Socket,
) -> Result<Connection, SessionError> {
    let malformed = |error| SessionError::Unusable(format!("AMQP_URL: {error}"));
    let mut nodes = nodes(&broker.amqp_url).map_err(malformed)?;
    let last = nodes.pop().ok_or_else(|| malformed("it names no node".to_owned()))?;
    for node in nodes {
        let (host, port) = (node.authority.host.clone(), node.authority.port);
        match open_node(node, &broker.tls, name, socket).await {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                tracing::warn!(connection = name, host, port, %error, "a node of the broker is away, trying the next");
                socket.shut();
            }
        }
    }
    open_node(last, &broker.tls, name, socket).await
}

async fn open_node(
    mut uri: AMQPUri,
    tls: &TlsArgs,
    name: &str,
    socket: &Socket,
) -> Result<Connection, SessionError> {
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let kept = socket.clone();
    let unreadable = |error| SessionError::Unusable(format!("a file of TLS: {error}"));
    let tls = tls.read().map_err(unreadable)?;
    let connecting = Connection::connector(
        uri,
        runtime::default_runtime()?,
        async move |uri, runtime| {
            let AMQPUri { scheme, authority, .. } = uri;
            let address = runtime.to_socket_addrs((authority.host.clone(), authority.port));
            let stream = AsyncTcpStream::connect(&runtime, address).await?;
            if let AsyncTcpStream::Plain(plain) = &stream {
                kept.keep(plain.get_ref().as_fd().try_clone_to_owned()?.into());
            }
            Ok::<_, lapin::Error>(match scheme {
                AMQPScheme::AMQP => stream,
                AMQPScheme::AMQPS => stream.into_tls(&authority.host, tls.as_ref()).await?,
            })
        },
        properties,
    );
    let connected = timeout(HANDSHAKE_TIMEOUT, connecting).await;
    connected.map_err(|_| SessionError::Timeout(HANDSHAKE_TIMEOUT))?.map_err(SessionError::from)
}

/// A second handle of a connection's socket. With a broker that does not take part, lapin ends no
/// connection by itself: neither its own end of it nor the thread that serves it.
#[derive(Debug, Clone, Default)]
struct Socket(Arc<Mutex<Option<TcpStream>>>);

impl Socket {
    fn keep(&self, stream: TcpStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    /// Closes the TCP connection without a word to the broker.
    fn shut(&self) {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stream) = stream {
            // It may be over already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Runs `session` on one connection after the other until `cancel`. A session returns `Ok` when
/// it stopped because of `cancel`, and an error when it needs a new connection; it gets one when the broker
/// can part with the old one.
pub async fn supervise<F>(
    broker: &BrokerArgs,
    name: &str,
    cancel: &CancellationToken,
    mut session: impl FnMut(Arc<Connection>) -> F,
) where
    F: Future<Output = Result<(), SessionError>>,
{
    let mut retry = Retry::reconnect();
    while !cancel.is_cancelled() {
        let started = Instant::now();
        let socket = Socket::default();
        let ended = tokio::select! {
            biased;
            connected = open(broker, name, &socket) => match connected {
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
                    if ended.is_err() {
                        cancel.run_until_cancelled(unblocked(&connection, name)).await;
                    }
                    close(&connection).await;
                    ended
                }
                Err(error) => Err(error),
            },
            () = cancel.cancelled() => Ok(()),
        };
        socket.shut();
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

/// Returns when a session should have ended since `cancel`, and has not.
async fn overdue(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(STOP_TIMEOUT).await;
}

/// Waits until the broker hears what is said on the connection. While it has an alarm it does not, not even
/// that a connection is closed: each one that is given up stays with it, and the next one fares no better.
async fn unblocked(connection: &Connection, name: &str) {
    let mut alarms = Alarms::of(connection);
    if connection.status().connected() && connection.status().blocked() {
        tracing::warn!(connection = name, "the broker blocks publishers, waiting for it");
        while let Ok(Alarm::Raised(_)) = alarms.next().await {}
    }
}

/// Closes with a handshake, so that the broker requeues at once and does not log an error.
pub async fn close(connection: &Connection) {
    if connection.status().connected() {
        // A broker that does not answer is left to notice by itself.
        let _ = timeout(HANDSHAKE_TIMEOUT, connection.close(200, "bye".into())).await;
    }
}

/// What the broker says about a connection unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// It takes no more messages (memory or disk alarm): lapin's publishes hang from now on, and go
    /// out when it ends.
    Raised(String),
    /// The broker takes messages again: what hung goes out now.
    Cleared,
}

/// The alarms that the broker raises on a connection, as a stream.
pub struct Alarms(std::pin::Pin<Box<dyn Stream<Item = Event> + Send>>);

impl Alarms {
    /// Listens to the connection; alarms of before are not told.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_nodes_are_told_apart_by_their_schemes() {
        let told = "amqp://u:p,w@one:5671/a,b, amqps://u:p@[::1]/v?heartbeat=3,amqp://two";
        let nodes = nodes(told).unwrap();
        let nodes: Vec<_> = nodes
            .iter()
            .map(|node| (node.authority.host.as_str(), node.authority.port, node.vhost.as_str()))
            .collect();
        assert_eq!(nodes, [("one", 5671, "a,b"), ("::1", 5671, "v"), ("two", 5672, "/")]);
    }

    #[test]
    fn a_malformed_url_among_others_is_not_shown() {
        for urls in ["", "amqp://one,amqp:s3cret", "s3cret,amqp://one", "amqp://one,amqps3cret"] {
            let error = nodes(urls).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
