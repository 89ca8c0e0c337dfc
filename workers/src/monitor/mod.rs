//! What a worker shows of itself over HTTP: `/health/live`, `/health/ready` and `/metrics`. For
//! orchestrators and Prometheus, never for customers.

mod dependencies;
mod health;
mod metrics;

pub use health::Report;
pub use metrics::example;

use std::{
    net::SocketAddr,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use anyhow::Context;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use firstcome_contract::line::Line;
use firstcome_process::database::Pool;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use dependencies::{Connected, Dependencies, Links};
use health::Health;
use metrics::{Served, Up};

use crate::{line::Stats, metrics::Metrics};

/// The health and the metrics of all roles of a process.
#[derive(Debug, Default)]
pub struct Monitor {
    metrics: Arc<Metrics>,
    served: Arc<Served>,
    roles: Mutex<Vec<Role>>,
    pools: Mutex<Vec<(&'static str, Pool)>>,
    dependencies: Arc<Dependencies>,
}

/// What a role tells of itself: how it is, and what it counts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Role {
    /// The role's name, which is that of its command.
    pub name: &'static str,
    health: Arc<Health>,
    /// The counters, which all roles of the process share.
    pub metrics: Arc<Metrics>,
    served: Arc<Served>,
    links: Links,
}

impl Role {
    /// Notes that the role works on a connection to the broker, until what comes back is dropped.
    pub(crate) fn connected(&self) -> Connected {
        self.links.add()
    }

    /// Adds a line to the metrics, for as long as its figures live.
    pub(crate) fn serves(&self, line: Line, stats: &Arc<Stats>) {
        self.served.add(line, stats);
    }
}

impl Deref for Role {
    type Target = Health;

    fn deref(&self) -> &Health {
        &self.health
    }
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    roles: Vec<Report>,
}

impl Monitor {
    /// Adds a role; it is not ready until it says so.
    #[must_use]
    pub fn role(&self, name: &'static str) -> Role {
        let (served, metrics) = (Arc::clone(&self.served), Arc::clone(&self.metrics));
        let health = Arc::new(Health::default());
        let role = Role { name, health, metrics, served, links: Links::default() };
        let mut roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        roles.push(role.clone());
        role
    }

    /// Adds a pool of connections to the metrics.
    pub fn uses(&self, name: &'static str, pool: &Pool) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.push((name, pool.clone()));
    }

    /// Asks PostgreSQL and Redis now and then whether they are there, until `stop`.
    ///
    /// # Errors
    /// None that is known. A service that is away is no error.
    pub fn watch(
        &self,
        pool: &Pool,
        redis: redis::Client,
        stop: CancellationToken,
    ) -> redis::RedisResult<impl Future<Output = ()> + use<>> {
        dependencies::watch(Arc::clone(&self.dependencies), pool.clone(), redis, stop)
    }

    /// Binds the address.
    ///
    /// # Errors
    /// The address is taken or not this machine's; with a hint for the operator.
    pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address} (WORKER_ADDR): is another process there? Port 0 is any that is free")
        })?;
        tracing::info!(address = %listener.local_addr()?, "health and metrics");
        Ok(listener)
    }

    /// Serves for as long as it is polled.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let router = Router::new()
            .route("/health/live", get(async || "ok"))
            .route("/health/ready", get(ready))
            .route("/metrics", get(scrape))
            .with_state(self);
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "health and metrics are no longer served");
        }
    }

    fn reports(&self) -> Vec<Report> {
        let roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        roles.iter().map(|role| role.health.report(role.name)).collect()
    }

    fn registry(&self) -> Registry {
        let roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        let up = Up {
            broker: roles.iter().all(|role| role.links.are_there()),
            database: self.dependencies.database.load(Ordering::Relaxed),
            redis: self.dependencies.redis.load(Ordering::Relaxed),
        };
        drop(roles);
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pools: Vec<_> = pools.iter().map(|(name, pool)| (*name, pool.usage())).collect();
        metrics::registry(&self.metrics, &self.served, &self.reports(), up, &pools)
    }
}

async fn ready(State(monitor): State<Arc<Monitor>>) -> Response {
    let roles = monitor.reports();
    let ready = roles.iter().all(|role| role.ready);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Texts always serialize.
    let body = serde_json::to_vec(&Readiness { ready, roles }).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn scrape(State(monitor): State<Arc<Monitor>>) -> Response {
    use firstcome_process::metrics::{CONTENT_TYPE, text};
    match text(&monitor.registry()) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
