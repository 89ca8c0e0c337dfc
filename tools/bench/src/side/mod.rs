//! What Firstcome is compared with: other designs of the same sale, and floors that no design of its
//! kind can beat. Each is a server in a process of its own, behind the API's own HTTP settings, with
//! the API's own authentication, on the same tables with the same constraints, and leaves the same
//! record of every success, so that one audit judges all.

mod coupons;
mod floors;
mod orders;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use axum::{
    Router,
    extract::FromRef,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::Utc;
use clap::{Args, ValueEnum};
use firstcome_api::{
    config::{DEFAULT_CONNECTIONS, SecretArgs},
    http::{
        auth::Verifier,
        limit::Limiter,
        problem::{Code, Problem},
    },
    server::{Connections, accept_connections},
};
use firstcome_broker::BrokerArgs;
use firstcome_contract::{
    job::{JobId, JobKind},
    line::Place,
};
use firstcome_process::{database::settings::BY_KEY, shutdown};
use serde::Serialize;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

/// How long a request may wait for a connection to the database, or for a lock: far above what any
/// storm of the benchmark makes it wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// A design.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum SideName {
    /// Floor: nothing but HTTP.
    Hello,
    /// Floor: HTTP, and one confirmed message to a quorum queue per request.
    Publish,
    /// A coupon per transaction, under the campaign's row lock (`FOR UPDATE`).
    Pessimistic,
    /// A coupon per transaction that commits only if the campaign did not change; up to 10 retries.
    Optimistic,
    /// A coupon per transaction, under a lock in Redis.
    RedisLock,
    /// A coupon per statement, which does it all.
    Atomic,
    /// An order per transaction, under row locks.
    SyncOrder,
}

impl SideName {
    /// As in the command line, the results and the log's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Publish => "publish",
            Self::Pessimistic => "pessimistic",
            Self::Optimistic => "optimistic",
            Self::RedisLock => "redis-lock",
            Self::Atomic => "atomic",
            Self::SyncOrder => "sync-order",
        }
    }
}

/// What `side` needs.
#[derive(Debug, Args)]
pub struct SideArgs {
    /// Which one.
    pub name: SideName,
    /// Connections to the database; of `redis-lock` also how many contend for the lock.
    #[arg(long, default_value_t = 8)]
    pub pool: u32,
    /// Where to listen.
    #[arg(long, env = "API_ADDR")]
    pub api_addr: SocketAddr,
    /// PostgreSQL.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// Redis.
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub broker: BrokerArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub secrets: SecretArgs,
}

/// What the handlers share.
#[derive(Clone)]
struct Side {
    verifier: Verifier,
    desk: Arc<Desk>,
}

impl FromRef<Side> for Verifier {
    fn from_ref(side: &Side) -> Self {
        side.verifier.clone()
    }
}

impl FromRef<Side> for Limiter {
    fn from_ref(_: &Side) -> Self {
        Self::unlimited()
    }
}

impl FromRef<Side> for Arc<Desk> {
    fn from_ref(side: &Side) -> Self {
        Self::clone(&side.desk)
    }
}

struct Desk {
    pool: PgPool,
    /// As many as the pool has connections: see [`coupons::under_redis_lock`].
    contenders: Semaphore,
    redis: Option<redis::aio::ConnectionManager>,
    publisher: Option<floors::Publisher>,
    sequence: AtomicU32,
}

impl Desk {
    /// A time-ordered id, as the API makes them, but without its signature.
    fn job_id(&self, kind: JobKind) -> JobId {
        let millis = u64::try_from(Utc::now().timestamp_millis()).unwrap_or_default();
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        JobId::compose(millis, kind, Place::UNKNOWN, sequence, 0)
    }
}

/// Serves a side until SIGTERM.
///
/// # Errors
/// With what is missing.
pub async fn serve(args: SideArgs) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone()).context("cannot listen for signals")?;
    let pool = PgPoolOptions::new()
        .max_connections(args.pool)
        .acquire_timeout(PATIENCE)
        .test_before_acquire(false)
        .connect_lazy_with(args.database_url.parse::<PgConnectOptions>()?.options(BY_KEY));
    let redis = if args.name == SideName::RedisLock {
        let client = redis::Client::open(args.redis_url.as_str())?;
        Some(redis::aio::ConnectionManager::new(client).await?)
    } else {
        None
    };
    let publisher = if args.name == SideName::Publish {
        Some(floors::Publisher::start(&args.broker, &pool).await?)
    } else {
        None
    };
    let desk = Desk {
        pool,
        contenders: Semaphore::new(usize::try_from(args.pool)?),
        redis,
        publisher,
        sequence: AtomicU32::new(0),
    };
    let side = Side { verifier: Verifier::new(&args.secrets)?, desk: Arc::new(desk) };
    let router = Router::<Side>::new().route("/hello", get(floors::hello));
    let coupon = "/api/coupons/{couponId}/issue";
    let router = match args.name {
        SideName::Hello => router,
        SideName::Publish => router.route(coupon, post(floors::publish)),
        SideName::Pessimistic => router.route(coupon, post(coupons::pessimistic)),
        SideName::Optimistic => router.route(coupon, post(coupons::optimistic)),
        SideName::RedisLock => router.route(coupon, post(coupons::under_redis_lock)),
        SideName::Atomic => router.route(coupon, post(coupons::atomic)),
        SideName::SyncOrder => router.route("/api/orders", post(orders::place)),
    };
    let listener = TcpListener::bind(args.api_addr).await?;
    let connections = Connections::new(DEFAULT_CONNECTIONS, args.pool)?;
    accept_connections(listener, router.with_state(side.clone()), &connections, &stop).await;
    if let Some(publisher) = &side.desk.publisher {
        publisher.close().await;
    }
    Ok(())
}

/// What a request ended with, other than success.
enum Failed {
    /// The API's own error document.
    Problem(Problem),
    /// 503: the design gave up.
    GaveUp,
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Code> for Failed {
    fn from(code: Code) -> Self {
        Self::Problem(Problem::new(code))
    }
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        if error.as_database_error().and_then(|error| error.constraint())
            == Some("user_coupons_one_per_user")
        {
            return Code::CouponAlreadyIssued.into();
        }
        eprintln!("{error}");
        Code::DatabaseUnavailable.into()
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        match self {
            Self::Problem(problem) => problem.into_response(),
            Self::GaveUp => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        }
    }
}

/// A success: what a settled job of ours answers to its poll, as far as it matters.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<R> {
    job_id: JobId,
    kind: &'static str,
    status: &'static str,
    result: R,
}

fn done<R: Serialize>(job_id: JobId, kind: JobKind, status: &'static str, result: R) -> Response {
    let done = Done { job_id, kind: kind.as_str(), status, result };
    match serde_json::to_vec(&done) {
        Ok(body) => (StatusCode::CREATED, [(header::CONTENT_TYPE, "application/json")], body)
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
