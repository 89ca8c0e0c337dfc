//! The HTTP side of Firstcome: validates, enqueues, answers polls.
//!
//! **Architecture invariants.** Submitting writes nothing but one confirmed message. There is
//! deliberately no code here that decides or writes a job's effects: it lives in `workers`, which
//! this crate cannot reach. Losing Redis costs speed only.

pub mod admin;
pub mod balance;
pub mod cache;
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
use axum::{Router, middleware, routing::get};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use config::{Command, ServeArgs};
use http::{
    answer::{self, Answering},
    auth,
    problem::{Code, Problem},
    trace,
};
use server::Connections;
use state::{AppState, Stops};

/// Everything that the API answers.
fn router(state: AppState) -> Router {
    let (router, document) = endpoints().split_for_parts();
    let answering = Answering {
        requests: state.requests.clone(),
        draining: state.draining.clone(),
        with_query: openapi::with_query(&document),
    };
    let router = router
        .route("/docs/", get(openapi::asset))
        .route("/docs/{*asset}", get(openapi::asset))
        .fallback(async || Problem::new(Code::RouteNotFound))
        .method_not_allowed_fallback(async || Problem::new(Code::MethodNotAllowed))
        .layer(middleware::from_fn_with_state(Arc::new(answering), answer::answer));
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
        .routes(routes!(health::scrape))
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
    let stops = Stops {
        draining: stop,
        closing: CancellationToken::new(),
        publishing: CancellationToken::new(),
    };
    let connections = Connections::new(config.max_connections, config.database_connections)?;
    let drain = Duration::from_secs(config.drain_seconds.into());
    let draining = async {
        stops.draining.cancelled().await;
        tracing::info!(?drain, "not ready any more, closing after that time");
        sleep(drain).await;
        stops.closing.cancel();
    };
    let state = AppState::start(config, Arc::clone(&connections), &stops, &tasks)?;
    firstcome_process::database::check_time_zone(&state.pool, &state.config.business_time_zone)
        .await
        .map_err(anyhow::Error::msg)?;
    tracing::info!(address = %listener.local_addr()?, connections = connections.limit(), "serving");
    let serving = server::accept_connections(listener, router(state), &connections, &stops.closing);
    tokio::join!(serving, draining);
    stops.publishing.cancel();
    tasks.close();
    tasks.wait().await;
    tracing::info!("stopped");
    Ok(())
}
