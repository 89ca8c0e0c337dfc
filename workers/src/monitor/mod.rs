//! What a worker shows of itself over HTTP: `/health/live`, `/health/ready` and `/metrics`. For
//! orchestrators and Prometheus, never for customers.

mod health;
mod metrics;

pub use health::Report;
pub use metrics::example;

use std::{
    net::SocketAddr,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
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
use serde::Serialize;
use tokio::net::TcpListener;

use health::Health;
use metrics::Served;

use crate::{line::Stats, metrics::Metrics};

/// The health and the metrics of all roles of a process.
#[derive(Debug, Default)]
pub struct Monitor {
    metrics: Arc<Metrics>,
    served: Arc<Served>,
    roles: Mutex<Vec<(&'static str, Arc<Health>)>>,
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
}

impl Role {
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
        let health = Arc::new(Health::default());
        let mut roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        roles.push((name, Arc::clone(&health)));
        let served = Arc::clone(&self.served);
        Role { name, health, metrics: Arc::clone(&self.metrics), served }
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
        roles.iter().map(|(name, health)| health.report(name)).collect()
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
    match text(&metrics::registry(&monitor.metrics, &monitor.served, &monitor.reports())) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
