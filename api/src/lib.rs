//! The HTTP side of Firstcome: validates, enqueues, answers polls.
//!
//! **Architecture invariants.** Submitting writes nothing but one confirmed message. There is
//! deliberately no code here that decides or writes a job's effects: it lives in `workers`, which
//! this crate cannot reach. Losing Redis costs speed only.

pub mod admin;
pub mod balance;
pub mod cart;
pub mod config;
pub mod coupon;
pub mod health;
pub mod http;
pub mod job;
pub mod known;
pub mod lines;
pub mod metrics;
pub mod openapi;
pub mod order;
pub mod product;
pub mod publish;
mod seldom;
pub mod server;
pub mod state;
pub mod submit;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    http::header,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::{net::TcpListener, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use config::{Command, ServeArgs};
use http::{
    answer, auth, limit,
    problem::{Code, Problem},
    trace,
};
use known::{
    batched::Batched, cache::Cache, campaigns::Campaigns, job_ids::Signer, keys::Keys, lost::Lost,
    outcomes::Outcomes, products::Products,
};
use publish::Enqueuer;
use server::Connections;
use state::{AppState, Inner};

/// Everything that the API answers.
pub fn router(state: AppState) -> Router {
    let router = Router::from(endpoints())
        .route("/docs/", get(openapi::asset))
        .route("/docs/{*asset}", get(openapi::asset))
        .fallback(async || Problem::new(Code::RouteNotFound))
        .method_not_allowed_fallback(async || Problem::new(Code::MethodNotAllowed))
        .layer(middleware::from_fn_with_state(state.clone(), answer::answer));
    trace::spans(router).with_state(state)
}

/// The endpoints. Their methods and paths stand beside the handlers, with their documentation, and
/// all together in `api/openapi.json`.
fn endpoints() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::Common::openapi())
        .routes(routes!(balance::get))
        .routes(routes!(balance::charge))
        .routes(routes!(balance::history))
        .routes(routes!(product::list))
        .routes(routes!(product::popular))
        .routes(routes!(product::get))
        .routes(routes!(coupon::list))
        .routes(routes!(coupon::get))
        .routes(routes!(coupon::issue))
        .routes(routes!(coupon::held))
        .routes(routes!(cart::get, cart::clear))
        .routes(routes!(cart::set, cart::remove))
        .routes(routes!(order::place))
        .routes(routes!(order::get))
        .routes(routes!(order::history))
        .routes(routes!(admin::create_user))
        .routes(routes!(admin::list_products, admin::create_product))
        .routes(routes!(admin::edit_product, admin::delete_product))
        .routes(routes!(admin::list_coupons, admin::create_coupon))
        .routes(routes!(admin::edit_coupon, admin::delete_coupon))
        .routes(routes!(admin::queues))
        .routes(routes!(admin::list_pins))
        .routes(routes!(admin::pin, admin::unpin))
        .routes(routes!(admin::list_dead_letters))
        .routes(routes!(admin::redrive_dead_letters))
        .routes(routes!(admin::redrive_dead_letter))
        .routes(routes!(admin::discard_dead_letter))
        .routes(routes!(health::ready))
        .routes(routes!(job::get))
        .routes(routes!(health::live))
        .routes(routes!(metrics::get))
        .routes(routes!(openapi::openapi))
        .routes(routes!(openapi::docs))
}

/// Does what the command line asks for.
///
/// # Errors
/// With a hint for the operator.
#[expect(clippy::print_stdout, reason = "the token is what the command is for")]
pub async fn command(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Token(args) => {
            println!("{}", auth::token(&args)?);
            Ok(())
        }
        Command::Serve(args) => {
            let stop = CancellationToken::new();
            firstcome_process::shutdown::on_signal(stop.clone())
                .context("cannot listen for signals")?;
            let listener = TcpListener::bind(args.api_addr).await.with_context(|| {
                format!("cannot listen on {} (API_ADDR): is another process there?", args.api_addr)
            })?;
            serve(*args, listener, stop).await
        }
    }
}

/// Serves until `stop`: then it says that it is not ready, and goes on for `DRAIN_SECONDS`, so that
/// nobody is sent to a closed door; then it takes no new connections, answers what is under way
/// (waiting polls at once) within a bound, and returns.
///
/// # Errors
/// With a hint for the operator.
pub async fn serve(
    config: ServeArgs,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let tasks = TaskTracker::new();
    // The publisher outlives the last request.
    let publishing = CancellationToken::new();
    let connections = Connections::new(config.max_connections, config.database_connections)?;
    let drain = Duration::from_secs(config.drain_seconds.into());
    // Cancelled, the door is closed.
    let closing = CancellationToken::new();
    let draining = async {
        stop.cancelled().await;
        tracing::info!(?drain, "not ready any more, closing after that time");
        sleep(drain).await;
        closing.cancel();
    };
    let state =
        state(config, Arc::clone(&connections), stop.clone(), &closing, &publishing, &tasks)?;
    firstcome_process::database::check_time_zone(&state.pool, &state.config.business_time_zone)
        .await
        .map_err(anyhow::Error::msg)?;
    tracing::info!(address = %listener.local_addr()?, connections = connections.limit(), "serving");
    let serving = server::accept_connections(listener, router(state), &connections, &closing);
    tokio::join!(serving, draining);
    publishing.cancel();
    tasks.close();
    tasks.wait().await;
    tracing::info!("stopped");
    Ok(())
}

fn state(
    config: ServeArgs,
    connections: Arc<Connections>,
    draining: CancellationToken,
    closing: &CancellationToken,
    publishing: &CancellationToken,
    tasks: &TaskTracker,
) -> anyhow::Result<AppState> {
    if config.secrets.dev {
        tracing::warn!("development mode: whatever secret is not set is well known");
    }
    let namespace = &config.broker.queue_namespace;
    let pool = config.pool().context("DATABASE_URL")?;
    let redis = redis::Client::open(config.redis_url.as_str()).context("REDIS_URL")?;
    let cache = Cache::new(redis.clone()).context("REDIS_URL")?;
    let coupons = Campaigns::new(&pool, cache.clone(), namespace);
    let deadline = Duration::from_millis(config.confirm_deadline_ms.into());
    let lines = lines::Lines::start(
        &pool,
        cache.clone(),
        &config.broker,
        config.line_capacity,
        publishing,
        tasks,
    );
    let metrics = metrics::Metrics::default();
    let lost = Lost::start(&pool, cache.clone(), namespace, Arc::clone(&lines), &metrics);
    let rewound = lines.rewound();
    let jobs =
        Outcomes::start(&pool, redis, namespace, Arc::clone(&coupons), rewound, closing.clone());
    let enqueuer = Enqueuer::start(&config.broker, &lines, deadline, publishing.clone(), tasks);
    Ok(AppState(Arc::new(Inner {
        verifier: auth::Verifier::new(&config.secrets)?,
        limiter: limit::Limiter::start(config.rate_limit, closing),
        signer: Signer::new(&config.job_id_keys()?),
        shown_coupons: Batched::start(&pool, |connection, ids| {
            Box::pin(coupon::shown(connection, ids))
        }),
        shown_products: Batched::start(&pool, |connection, ids| {
            Box::pin(product::shown(connection, ids))
        }),
        shown_balances: Batched::start(&pool, |connection, users| {
            Box::pin(balance::shown(connection, users))
        }),
        known_products: Products::new(&pool),
        product_pages: product::Pages::new(cache.clone(), namespace, config.products_ttl),
        popular: product::PopularBoard::new(
            cache.clone(),
            namespace,
            config.popular_ttl,
            &config.business_time_zone,
        ),
        keys: Keys::new(
            &pool,
            cache,
            namespace,
            Arc::clone(&jobs),
            Arc::clone(&lost),
            enqueuer.clone(),
            config.retention(),
        ),
        jobs,
        lost,
        enqueuer,
        lines,
        coupons,
        connections,
        draining,
        metrics,
        pool,
        config,
    })))
}

/// A JSON answer.
fn json(body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer did not serialize");
            Problem::new(Code::InternalError).into_response()
        }
    }
}
