//! The settling side of Firstcome: one consumer per partition takes what is waiting, decides it in
//! memory, and commits the whole batch in one PostgreSQL transaction.
//!
//! **Architecture invariants.** The queue gives order and calm; PostgreSQL alone gives correctness
//! (constraints, row locks, one outcome row per job), so a duplicate delivery or a second consumer
//! can cost time but never truth. A handler returns one outcome per job; `Err` means infrastructure
//! only. There is deliberately no HTTP to customers here and no dependency on the `api` crate.

pub mod audit;
pub mod config;
pub mod issue_coupon;
pub mod migrate;
pub mod mock_data_platform;
pub mod outcome;
pub mod place_order;
pub mod registry;
pub mod relay_outbox;
pub mod runtime;
pub mod sample_data;
pub mod send_to_data_platform;
pub mod update_sales_stats;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use firstcome_shared::job::JobKind;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use config::{Command, WorkerArgs};
use mock_data_platform::MockDataPlatform;
use runtime::{Announcer, Role};

/// Does what the command line asks for.
///
/// # Errors
/// With a hint for the operator.
pub async fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::IssueCoupon(args) => {
            work(&[RoleName::Settle(JobKind::IssueCoupon)], &args).await?
        }
        Command::PlaceOrder(args) => work(&[RoleName::Settle(JobKind::PlaceOrder)], &args).await?,
        Command::RelayOutbox(args) => work(&[RoleName::RelayOutbox], &args).await?,
        Command::UpdateSalesStats(args) => work(&[RoleName::UpdateSalesStats], &args).await?,
        Command::SendToDataPlatform(args) => {
            anyhow::ensure!(args.data_platform_url.is_some(), "DATA_PLATFORM_URL is not set");
            work(&[RoleName::SendToDataPlatform], &args).await?;
        }
        Command::MockDataPlatform { address } => {
            let stop = CancellationToken::new();
            firstcome_shared::shutdown::on_signal(stop.clone())
                .context("cannot listen for signals")?;
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
            tracing::info!(%address, "mock data platform");
            MockDataPlatform::default().serve(listener, stop).await?;
        }
        Command::All(args) => work(&RoleName::ALL, &args).await?,
        Command::RebuildStats { days, time_zone, database } => {
            let pool = database.pool().context("DATABASE_URL")?;
            let drifts =
                update_sales_stats::rebuild(&pool, &time_zone.business_time_zone, days).await;
            for drift in drifts.context("cannot recount (is BUSINESS_TIME_ZONE a time zone?)")? {
                tracing::warn!(?drift, "repaired");
            }
            tracing::info!(days, "the sales statistics are what the completed orders say");
        }
        Command::Migrate(database) => {
            let pool = database.pool().context("DATABASE_URL")?;
            migrate::migrate(&pool).await.context(
                "cannot migrate the database (is DATABASE_URL right and PostgreSQL up?)",
            )?;
            tracing::info!("the database schema is up to date");
        }
        Command::SampleData { users, database } => {
            let pool = database.pool().context("DATABASE_URL")?;
            sample_data::create(&pool, users)
                .await
                .context("cannot create sample data (was `firstcome-worker migrate` run?)")?;
            tracing::info!(users, "sample data is there");
        }
        Command::Audit(database) => {
            let pool = database.pool().context("DATABASE_URL")?;
            let findings = audit::audit(&pool)
                .await
                .context("cannot audit (was `firstcome-worker migrate` run?)")?;
            return Ok(audit::report(&findings));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a process can do for as long as it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleName {
    /// Settle the jobs of a kind.
    Settle(JobKind),
    /// Publish the outbox.
    RelayOutbox,
    /// Count the sales.
    UpdateSalesStats,
    /// Send completed orders to the data platform, if there is one.
    SendToDataPlatform,
}

impl RoleName {
    /// Every role there is.
    pub const ALL: [Self; 5] = [
        Self::Settle(JobKind::IssueCoupon),
        Self::Settle(JobKind::PlaceOrder),
        Self::RelayOutbox,
        Self::UpdateSalesStats,
        Self::SendToDataPlatform,
    ];
}

/// Starts roles; they run until `stop`.
///
/// # Errors
/// A malformed URL.
pub fn start(
    roles: &[RoleName],
    args: &WorkerArgs,
    stop: &CancellationToken,
) -> anyhow::Result<JoinSet<()>> {
    let pool = args.database.pool().context("DATABASE_URL")?;
    let announcer =
        Announcer::start(&args.redis_url, &args.broker.queue_namespace).context("REDIS_URL")?;
    let mut running = JoinSet::new();
    for role in roles {
        let (broker, pool, stop) = (args.broker.clone(), pool.clone(), stop.clone());
        match role {
            RoleName::Settle(kind) => {
                let role = Role { kind: *kind, broker, pool, announcer: announcer.clone() };
                running.spawn(runtime::run(Arc::new(role), stop));
            }
            RoleName::RelayOutbox => {
                running.spawn(relay_outbox::run(broker, pool, stop));
            }
            RoleName::UpdateSalesStats => {
                let time_zone = args.time_zone.business_time_zone.clone();
                running.spawn(update_sales_stats::run(broker, pool, time_zone, stop));
            }
            RoleName::SendToDataPlatform => {
                let patience = Duration::from_millis(args.data_platform_timeout_ms.into());
                match &args.data_platform_url {
                    Some(url) => {
                        running
                            .spawn(send_to_data_platform::run(broker, pool, url, patience, stop)?);
                    }
                    None => tracing::warn!(
                        "no DATA_PLATFORM_URL: events for the data platform wait in their queue"
                    ),
                }
            }
        }
    }
    Ok(running)
}

async fn work(roles: &[RoleName], args: &WorkerArgs) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    firstcome_shared::shutdown::on_signal(stop.clone()).context("cannot listen for signals")?;
    start(roles, args, &stop)?.join_all().await;
    tracing::info!("stopped");
    Ok(())
}
