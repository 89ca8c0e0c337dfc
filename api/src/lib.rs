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
mod digest;
pub mod health;
pub mod http;
pub mod job;
pub mod known;
pub mod lines;
pub mod metrics;
pub mod openapi;
pub mod ops;
pub mod order;
pub mod product;
pub mod publish;
mod seldom;
pub mod server;
pub mod state;
pub mod submit;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, middleware, routing::get};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa::OpenApi;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};

use config::{Command, ServeArgs};
use http::{
    answer::{self, Answering},
    auth, cors, gzip,
    problem::{Code, Problem},
    trace,
};
use server::Connections;
use state::{AppState, Stops};

/// Connections of operators, if they have a door of their own.
const OPERATORS_CONNECTIONS: u32 = 100;

/// Who comes through a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// Customers, and operators if they have none of their own.
    Public { has_operators: bool },
    /// Operators and their tools.
    Operators,
}

/// Everything that is answered at this door.
fn router(state: AppState, door: Door) -> Router {
    let endpoints = match door {
        Door::Public { has_operators: true } => endpoints(),
        Door::Public { has_operators: false } => probes().merge(customers()),
        Door::Operators => probes().merge(operators()),
    };
    let (mut router, document) = endpoints.split_for_parts();
    let answering = Answering {
        requests: state.requests.clone(),
        draining: state.draining.clone(),
        with_query: openapi::with_query(&document),
        origins: state.config.cors_origins.clone(),
    };
    if door != (Door::Public { has_operators: false }) {
        router = router
            .route("/docs/", get(openapi::asset))
            .route("/docs/{*asset}", get(openapi::asset))
            .route("/ops/", get(ops::file))
            .route("/ops/{*file}", get(ops::file));
    }
    let router = router
        .fallback(async || Problem::new(Code::RouteNotFound))
        .method_not_allowed_fallback(async || Problem::new(Code::MethodNotAllowed))
        .layer(middleware::from_fn_with_state(Arc::new(answering), answer::answer));
    // Around everything: a browser is to read the problems too.
    let router = cors::allow(router, &state.config.cors_origins);
    trace::spans(router).with_state(state)
}

/// The endpoints. Their methods and paths stand beside the handlers, with their documentation, and
/// all together in `api/openapi.json`.
fn endpoints() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::Common::openapi())
        .merge(customers())
        .merge(operators())
        .merge(probes())
}

fn probes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(health::ready)).routes(routes!(health::live))
}

fn customers() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(balance::get))
        .routes(routes!(balance::charge))
        .routes(routes!(balance::history).layer(gzip::lists()))
        .routes(routes!(product::list))
        .routes(routes!(product::popular))
        .routes(routes!(product::get))
        .routes(routes!(coupon::list))
        .routes(routes!(coupon::get))
        .routes(routes!(coupon::issue))
        .routes(routes!(coupon::held).layer(gzip::lists()))
        .routes(routes!(cart::get, cart::clear))
        .routes(routes!(cart::set, cart::remove))
        .routes(routes!(order::place))
        .routes(routes!(order::get))
        .routes(routes!(order::cancel))
        .routes(routes!(order::history).layer(gzip::lists()))
        .routes(routes!(job::get))
}

fn operators() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(admin::get_operator))
        .routes(routes!(admin::find_users, admin::create_user).layer(gzip::lists()))
        .routes(routes!(admin::get_user))
        .routes(routes!(admin::find_orders).layer(gzip::lists()))
        .routes(routes!(admin::get_any_order))
        .routes(routes!(admin::find_jobs).layer(gzip::lists()))
        .routes(routes!(admin::get_any_job))
        .routes(routes!(admin::remove_personal_data))
        .routes(routes!(admin::list_products, admin::create_product).layer(gzip::lists()))
        .routes(routes!(admin::edit_product, admin::delete_product))
        .routes(routes!(admin::add_stock))
        .routes(routes!(admin::list_coupons, admin::create_coupon).layer(gzip::lists()))
        .routes(routes!(admin::edit_coupon, admin::delete_coupon))
        .routes(routes!(admin::import_users))
        .routes(routes!(admin::import_products))
        .routes(routes!(admin::import_coupons))
        .routes(routes!(admin::list_changes).layer(gzip::lists()))
        .routes(routes!(admin::list_buyers).layer(gzip::lists()))
        .routes(routes!(admin::list_winners).layer(gzip::lists()))
        .routes(routes!(admin::cancel_order))
        .routes(routes!(admin::queues).layer(gzip::lists()))
        .routes(routes!(admin::queue_history).layer(gzip::lists()))
        .routes(routes!(admin::halt))
        .routes(routes!(admin::resume))
        .routes(routes!(admin::report_sale))
        .routes(routes!(admin::list_pins).layer(gzip::lists()))
        .routes(routes!(admin::pin, admin::unpin))
        .routes(routes!(admin::list_dead_letters).layer(gzip::lists()))
        .routes(routes!(admin::redrive_dead_letters))
        .routes(routes!(admin::redrive_dead_letter))
        .routes(routes!(admin::discard_dead_letter))
        .routes(routes!(health::scrape))
        .routes(routes!(openapi::openapi))
        .routes(routes!(openapi::docs))
        .routes(routes!(ops::ops))
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
            let doors = Doors {
                public: listen("API_ADDR", args.api_addr).await?,
                operators: match args.api_admin_addr {
                    Some(address) => Some(listen("API_ADMIN_ADDR", address).await?),
                    None => None,
                },
            };
            serve(*args, doors, stop).await
        }
    }
}

async fn listen(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} ({setting}): is another process there?")
    })
}

/// Where clients come in.
#[derive(Debug)]
pub struct Doors {
    /// For everybody.
    pub public: TcpListener,
    /// For operators, if they have one of their own: then there is nothing for them at the other.
    pub operators: Option<TcpListener>,
}

/// Serves until `stop`: then it says that it is not ready, and goes on for `DRAIN_SECONDS`, so that
/// nobody is sent to a closed door; then it takes no new connections, answers what is under way
/// (waiting polls at once) within a bound, and returns.
///
/// # Errors
/// With a hint for the operator.
pub async fn serve(config: ServeArgs, doors: Doors, stop: CancellationToken) -> anyhow::Result<()> {
    let tasks = TaskTracker::new();
    let stops = Stops {
        draining: stop,
        closing: CancellationToken::new(),
        publishing: CancellationToken::new(),
    };
    let to_postgres = config.database_connections;
    // Of their own: who crowds the public door does not keep operators out.
    let operators = match doors.operators {
        Some(listener) => Some((listener, Connections::new(OPERATORS_CONNECTIONS, to_postgres)?)),
        None => None,
    };
    let reserved = operators.as_ref().map_or(0, |_| OPERATORS_CONNECTIONS);
    let connections = Connections::new(config.max_connections, to_postgres + reserved)?;
    let drain = Duration::from_secs(config.drain_seconds.into());
    let draining = async {
        stops.draining.cancelled().await;
        tracing::info!(?drain, "not ready any more, closing after that time");
        sleep(drain).await;
        stops.closing.cancel();
    };
    let state = AppState::start(config, Arc::clone(&connections), &stops, &tasks).await?;
    let address = doors.public.local_addr()?;
    tracing::info!(%address, connections = connections.limit(), "serving");
    let door = Door::Public { has_operators: operators.is_none() };
    let public = router(state.clone(), door);
    let public = server::accept_connections(doors.public, public, &connections, &stops.closing);
    let operators = async {
        if let Some((listener, connections)) = operators {
            let router = router(state, Door::Operators);
            server::accept_connections(listener, router, &connections, &stops.closing).await;
        }
    };
    tokio::join!(public, operators, draining);
    stops.publishing.cancel();
    tasks.close();
    tasks.wait().await;
    tracing::info!("stopped");
    Ok(())
}
