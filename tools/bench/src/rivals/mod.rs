//! What Firstcome is compared with: other designs of the same sale, and floors that no design of its
//! kind can beat. Each is a server in a process of its own, behind the API's own HTTP settings, with
//! the API's own authentication, on the same tables with the same constraints, and leaves the same
//! record of every success, so that one audit judges all.

mod campaign;
mod coupons;
mod floors;
mod orders;
mod publisher;
mod redis_lua;
mod script;
mod shared;
mod writer;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU32},
};

use anyhow::Context;
use axum::{
    Router,
    routing::{get, post},
};
use clap::{Args, ValueEnum};
use firstcome_api::{
    config::{DEFAULT_CONNECTIONS, SecretArgs},
    http::auth::Verifier,
    server::{Connections, accept_connections},
};
use firstcome_broker::BrokerArgs;
use firstcome_process::{database::settings::BY_KEY, shutdown};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use publisher::Publisher;
use script::RedisLua;
use shared::{App, Shared, WAIT_DEADLINE};

pub(crate) use writer::STREAM;

/// A design.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Rival {
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
    /// A coupon per call of a script in Redis, batches into the database behind it; the AOF is synced every second.
    RedisLuaEverysec,
    /// The same; the AOF is synced before every answer.
    RedisLuaAlways,
    /// An order per transaction, under row locks.
    SyncOrder,
}

impl Rival {
    /// As in the command line, the results and the log's name.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Publish => "publish",
            Self::Pessimistic => "pessimistic",
            Self::Optimistic => "optimistic",
            Self::RedisLock => "redis-lock",
            Self::Atomic => "atomic",
            Self::RedisLuaEverysec => "redis-lua-everysec",
            Self::RedisLuaAlways => "redis-lua-always",
            Self::SyncOrder => "sync-order",
        }
    }

    /// Whether it leaves nothing in the database.
    pub(crate) const fn is_floor(self) -> bool {
        matches!(self, Self::Hello | Self::Publish)
    }
}

/// What `side` needs.
#[derive(Debug, Args)]
pub(crate) struct RivalArgs {
    /// Which one.
    pub(super) name: Rival,
    /// Connections to the database; of `redis-lock` also how many contend for the lock.
    #[arg(long, default_value_t = 8)]
    pub(super) pool: u32,
    /// Where to listen.
    #[arg(long, env = "API_ADDR")]
    pub(super) api_addr: SocketAddr,
    /// PostgreSQL.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub(super) database_url: String,
    /// Redis.
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub(super) redis_url: String,
    #[command(flatten)]
    pub(super) broker: BrokerArgs,
    #[command(flatten)]
    pub(super) secrets: SecretArgs,
}

/// Serves a rival until SIGTERM.
pub(crate) async fn serve(args: RivalArgs) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone()).context("cannot listen for signals")?;
    let pool = PgPoolOptions::new()
        .max_connections(args.pool)
        .acquire_timeout(WAIT_DEADLINE)
        .test_before_acquire(false)
        .connect_lazy_with(args.database_url.parse::<PgConnectOptions>()?.options(BY_KEY));
    let client = redis::Client::open(args.redis_url.as_str())?;
    let redis = if args.name == Rival::RedisLock {
        Some(redis::aio::ConnectionManager::new(client.clone()).await?)
    } else {
        None
    };
    let (redis_lua, writer) =
        if matches!(args.name, Rival::RedisLuaEverysec | Rival::RedisLuaAlways) {
            let redis_lua = RedisLua::connect(client.clone(), WAIT_DEADLINE).await?;
            (Some(redis_lua), Some(tokio::spawn(writer::run(client, pool.clone(), stop.clone()))))
        } else {
            (None, None)
        };
    let publisher = if args.name == Rival::Publish {
        Some(Publisher::start(&args.broker, &pool).await?)
    } else {
        None
    };
    let shared = Shared {
        pool,
        contenders: Semaphore::new(usize::try_from(args.pool)?),
        redis,
        redis_lua,
        publisher,
        sequence: AtomicU32::new(0),
    };
    let app = App {
        verifier: Verifier::start(&args.secrets, None, &CancellationToken::new())?,
        shared: Arc::new(shared),
    };
    let router = Router::<App>::new().route("/hello", get(floors::hello));
    let coupon = "/api/coupons/{couponId}/issue";
    let router = match args.name {
        Rival::Hello => router,
        Rival::Publish => router.route(coupon, post(floors::publish)),
        Rival::Pessimistic => router.route(coupon, post(coupons::pessimistic)),
        Rival::Optimistic => router.route(coupon, post(coupons::optimistic)),
        Rival::RedisLock => router.route(coupon, post(coupons::under_redis_lock)),
        Rival::Atomic => router.route(coupon, post(coupons::atomic)),
        Rival::RedisLuaEverysec | Rival::RedisLuaAlways => {
            router.route(coupon, post(redis_lua::issue))
        }
        Rival::SyncOrder => router.route("/api/orders", post(orders::place)),
    };
    let listener = TcpListener::bind(args.api_addr).await?;
    let connections = Connections::new(DEFAULT_CONNECTIONS, args.pool)?;
    accept_connections(listener, router.with_state(app.clone()), &connections, &stop).await;
    if let Some(publisher) = &app.shared.publisher {
        publisher.close().await;
    }
    if let Some(writer) = writer {
        writer.await?;
    }
    Ok(())
}
