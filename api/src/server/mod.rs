//! Connections: how many there may be, and what a client may do with one. Whoever is slow, silent or
//! many costs a bounded share of memory and file descriptors, and the rest is for the others.

mod client;

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, LazyLock},
    time::Duration,
};

use anyhow::{Context, ensure};
use axum::{Router, http::HeaderMap, response::IntoResponse};
use hyper::{
    Request,
    body::{Body, Incoming},
    server::conn::http1,
    service::Service,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus_client::metrics::counter::Counter;
use rlimit::Resource;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    http::{
        address::Peer,
        problem::{Code, Problem},
        request_id,
    },
    seldom::{LOG_INTERVAL, Seldom},
};
use client::{Client, Progress, Timeouts};

/// The largest head of a request, and so the buffers of a connection, which hyper lets grow to
/// half a MiB else. A head here is a token and some names: 1 or 2 KiB.
const MAX_HEAD: usize = 16 * 1024;
/// How long a connection may be silent between requests: longer than the 60 s of common balancers,
/// else a request that such a one sends meets a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// A head is a packet or two. An answer that a client takes nothing of for so long is lost on it, and
/// holds its buffers here and in the kernel.
const TIMEOUTS: Timeouts = Timeouts {
    head: Duration::from_secs(10),
    write: Duration::from_secs(20),
    linger: Duration::from_secs(2),
};
/// How long clients may take to send what they began and read their answers, once the API stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// File descriptors that are not for clients, besides those of the connections to PostgreSQL: the
/// broker, Redis, the log, the runtime, with room to connect anew before the old one is closed.
const RESERVED_FILES: u64 = 64;
/// Clients beyond the bound that are told so at a time; more of them are cut off without a word.
const MAX_REFUSALS: usize = 64;
/// How long it may take to tell a client: by then it has sent its request, or will not soon.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// When a client that was refused may come again, in seconds: idle connections are closed by then.
const REFUSED_SECONDS: u64 = 1;

/// How often idle connections are closed while there is hardly room for more, at most: it wakes every
/// connection.
const SHED_INTERVAL: Duration = Duration::from_secs(1);
/// A younger connection is not closed for want of a request, which is on its way.
const MIN_LIFETIME: Duration = Duration::from_secs(1);
/// How soon it is tried again when the system has no descriptor left.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Counts the connections of clients, and bounds them.
#[derive(Debug)]
pub struct Connections {
    limit: usize,
    open: TaskTracker,
    refused: Counter,
}

impl Connections {
    /// At most so many, and fewer where the limit of open files does not leave so many beside
    /// those that PostgreSQL takes.
    ///
    /// # Errors
    /// With a hint, if it leaves none.
    pub fn new(wanted: u32, to_postgres: u32) -> anyhow::Result<Arc<Self>> {
        let files = open_files().context("the limit of open files")?;
        let kept = u64::from(to_postgres) + RESERVED_FILES + u64::try_from(MAX_REFUSALS)?;
        let limit = usize::try_from(files.saturating_sub(kept).min(wanted.into()))?;
        ensure!(
            limit > 0,
            "at most {files} open files (ulimit -n): {kept} are needed besides clients'"
        );
        if limit < usize::try_from(wanted)? {
            tracing::warn!(limit, files, "fewer connections than MAX_CONNECTIONS: raise ulimit -n");
        }
        Ok(Arc::new(Self { limit, open: TaskTracker::new(), refused: Counter::default() }))
    }

    /// How many connections clients have at present.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// How many connections clients may have.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// How many connections were refused since the start, for that limit.
    #[must_use]
    pub const fn refused(&self) -> &Counter {
        &self.refused
    }

    /// Hardly room for more: an eighth is kept for those who come before the idle ones are gone.
    const fn is_crowded(open: usize, limit: usize) -> bool {
        open >= limit - limit / 8
    }
}

/// How many files may be open, once the limit is raised: a connection is a file descriptor, and the
/// usual soft limit of 1,024 is kept low for programs that call select(2) only.
fn open_files() -> io::Result<u64> {
    match rlimit::increase_nofile_limit(rlimit::INFINITY) {
        Ok(limit) => {
            tracing::info!(limit, "open files");
            Ok(limit)
        }
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            rlimit::getrlimit(Resource::NOFILE).map(|(limit, _)| limit)
        }
    }
}

/// Serves this router until `stop`, with every setting of HTTP that this API has: the benchmark puts
/// what it compares with behind the same.
///
/// A client beyond the bound gets a 503, since one that knows when to come back is better than one
/// that tries at once. Before it comes to that, idle connections are closed: who has nothing to ask
/// does not keep others out.
pub async fn accept_connections(
    listener: TcpListener,
    router: Router,
    connections: &Connections,
    stop: &CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT).max_buf_size(MAX_HEAD);
    let mut once = http.clone();
    once.keep_alive(false);
    let refusing = TaskTracker::new();
    // Cancelled, it closes the connections accepted since the last time: idle ones at once, others
    // after their answer.
    let mut closing = stop.child_token();
    let (mut shed, mut log) = (Seldom::new(SHED_INTERVAL), Seldom::new(LOG_INTERVAL));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let open = connections.open();
        let exhausted = accepted.as_ref().is_err_and(|error| !is_the_clients(error));
        if (exhausted || Connections::is_crowded(open, connections.limit)) && shed.now() {
            closing.cancel();
            closing = stop.child_token();
        }
        match accepted {
            Ok((stream, peer)) if open < connections.limit => {
                let serving = serve(stream, peer, router.clone(), http.clone(), closing.clone());
                connections.open.spawn(serving);
            }
            Ok((stream, peer)) => {
                connections.refused.inc();
                if log.now() {
                    tracing::warn!(open, "refusing clients: as many connections as there may be");
                }
                if refusing.len() < MAX_REFUSALS {
                    let serving = serve(
                        stream,
                        peer,
                        REFUSAL.clone(),
                        once.clone(),
                        CancellationToken::new(),
                    );
                    refusing.spawn(timeout(REFUSAL_TIMEOUT, serving));
                }
            }
            Err(error) if exhausted => {
                if log.now() {
                    tracing::warn!(%error, open, "cannot accept clients; trying on");
                }
                sleep(ACCEPT_RETRY_INTERVAL).await;
            }
            Err(_) => {}
        }
    }
    drop(listener);
    connections.open.close();
    if timeout(STOP_TIMEOUT, connections.open.wait()).await.is_err() {
        tracing::warn!("cutting off clients that did not finish within {STOP_TIMEOUT:?}");
    }
}

/// What a client beyond the bound is told, whatever it asks for.
static REFUSAL: LazyLock<Router> = LazyLock::new(|| {
    Router::new().fallback(async |headers: HeaderMap| {
        let refusal = Problem::new(Code::TooManyConnections).retry_after(REFUSED_SECONDS);
        request_id::named(request_id::of(&headers), async { refusal.into_response() }).await
    })
});

/// A connection that was lost before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// Serves one client until it leaves or breaks a bound; once `closing`, until its answer.
async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    http: http1::Builder,
    closing: CancellationToken,
) {
    let came = Instant::now();
    // A small answer must not wait for the client's delayed ACK.
    let _ = stream.set_nodelay(true);
    let progress = Progress::default();
    let client = TokioIo::new(Client::new(stream, progress.clone(), TIMEOUTS));
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        progress.asked(!request.body().is_end_stream());
        let (answering, progress) = (router.call(request), progress.clone());
        async move {
            let answer = answering.await;
            progress.answered();
            answer
        }
    });
    // Whatever a client did to its connection is the client's business.
    let mut connection = pin!(http.serve_connection(client, service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = closing.cancelled() => {}
    }
    if timeout_at(came + MIN_LIFETIME, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}
