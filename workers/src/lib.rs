//! The settling side of Firstcome: one consumer per line takes what is waiting, decides it in
//! memory, and commits the whole batch in one PostgreSQL transaction.
//!
//! **Architecture invariants.** The queue gives order and calm; PostgreSQL alone gives correctness
//! (constraints, row locks, one outcome row per job), so a duplicate delivery or a second consumer
//! can cost time but never truth. A handler returns one outcome per job; `Err` means infrastructure,
//! or a bug of the handler. There is deliberately no HTTP to customers here and no dependency on the `api` crate.

pub mod cli;
pub mod commands;
pub mod config;
pub mod crew;
mod database;
pub mod events;
pub mod jobs;
pub mod line;
pub mod metrics;
pub mod monitor;
mod roles;
pub mod schema;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use firstcome_contract::family::Family;
use firstcome_process::database::Pool;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use cli::Command;
use commands::{
    audit, dead_letters, health,
    mock_data_platform::MockDataPlatform,
    plan, preflight,
    purge::{self, Since},
    reconcile, sample_data,
};
use config::WorkerArgs;
use crew::Role;
use events::{
    relay_outbox,
    send_to_data_platform::{self, Platform},
    update_sales_stats,
    webhook::Credentials,
};
use line::{Announcer, Notifier};
use monitor::Monitor;
pub use roles::{RoleCommand, RoleName};

/// Runs the command, until it is done or, for a role, until a signal comes.
///
/// # Errors
/// With a hint for the operator.
pub async fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Role(command) => {
            let (role, args) = command.parts();
            let has_its_url =
                role != RoleName::SendToDataPlatform || args.data_platform_url.is_some();
            anyhow::ensure!(has_its_url, "DATA_PLATFORM_URL is not set");
            work(&[role], &args).await?;
        }
        Command::MockDataPlatform { address, signing_secret, token } => {
            let credentials = Credentials::new(signing_secret.as_deref(), token.as_deref())?;
            let stop = CancellationToken::new();
            firstcome_process::shutdown::on_signal(stop.clone())
                .context("cannot listen for signals")?;
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
            tracing::info!(%address, "mock data platform");
            MockDataPlatform::of(credentials).serve(listener, stop).await?;
        }
        Command::All(args) => work(&RoleName::ALL, &args).await?,
        Command::RebuildStats { days, time_zone, database } => {
            let pool = asking_pool(database.command_pool()).await?;
            let drifts =
                update_sales_stats::rebuild(&pool, &time_zone.business_time_zone, days).await;
            for drift in drifts.context("cannot recount (is BUSINESS_TIME_ZONE a time zone?)")? {
                tracing::warn!(?drift, "repaired");
            }
            tracing::info!(days, "the sales statistics are what the orders say");
        }
        Command::Purge { retention, time_zone, database } => {
            let pool = asking_pool(database.command_pool()).await?;
            let (time_zone, retention) = (time_zone.business_time_zone, retention.job_retention);
            let purged = purge::purge(&pool, &time_zone, retention, Since::Ever)
                .await
                .context("cannot purge (is BUSINESS_TIME_ZONE a time zone?)")?;
            tracing::info!(purged = ?purged.unwrap_or_default(), "purged");
        }
        Command::DeadLetters { action, database } => {
            let pool = asking_pool(database.command_pool()).await?;
            dead_letters::run(&pool, action).await?;
        }
        Command::Partitions { family, count, database } => {
            let pool = asking_pool(database.command_pool()).await?;
            crew::set_partitions(&pool, family, count).await?;
            let family = family.as_str();
            tracing::info!(family, count, "wanted; the running workers bring it about");
        }
        Command::Migrate(database) => {
            let pool = asking_pool(database.command_pool()).await?;
            schema::migrate(&pool).await.context(
                "cannot migrate the database (is DATABASE_URL right and PostgreSQL up?)",
            )?;
            tracing::info!("the database schema is up to date");
        }
        Command::SampleData { users, database } => {
            let pool = asking_pool(database.command_pool()).await?;
            sample_data::create(&pool, users)
                .await
                .context("cannot create sample data (was `firstcome-worker migrate` run?)")?;
            tracing::info!(users, "sample data is there");
        }
        Command::Audit(database) => {
            let pool = asking_pool(database.reading_pool()).await?;
            let findings = audit::audit(&pool)
                .await
                .context("cannot audit (was `firstcome-worker migrate` run?)")?;
            return Ok(audit::report(&findings));
        }
        Command::Preflight(args) => {
            let pool = asking_pool(args.database.command_pool()).await?;
            let checks = preflight::run(&pool, &args).await;
            let checks = checks.context(
                "cannot look (is DATABASE_URL right, and was `firstcome-worker migrate` run?)",
            )?;
            return Ok(preflight::report(&checks));
        }
        Command::Plan(args) => {
            let pool = asking_pool(args.database.reading_pool()).await?;
            plan::run(&pool, &args).await?;
        }
        Command::Health(args) => return health::ask(&args).await,
        Command::Reconcile(args) => {
            let pool = asking_pool(args.database.command_pool()).await?;
            let redis = args.redis.client()?;
            let found = reconcile::reconcile(&pool, &redis, &args.queue_namespace).await?;
            reconcile::report(&found, &args.queue_namespace);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The pool, if no pooler in between is in its way.
async fn asking_pool(pool: Result<Pool, sqlx::Error>) -> anyhow::Result<Pool> {
    let pool = pool.context("DATABASE_URL")?;
    pool.check_sessions().await.map_err(anyhow::Error::msg)?;
    Ok(pool)
}

/// The data platform, if it is somewhere.
fn platform(args: &WorkerArgs) -> anyhow::Result<Option<Platform>> {
    let Some(url) = &args.data_platform_url else { return Ok(None) };
    let credentials = Credentials::new(
        args.data_platform_signing_secret.as_deref(),
        args.data_platform_token.as_deref(),
    )?;
    let timeout = Duration::from_millis(args.data_platform_timeout_ms.into());
    Platform::new(url, args.data_platform_ca_file.as_deref(), timeout, credentials).map(Some)
}

/// Starts roles; they run until `stop`, and `monitor` tells how they are.
///
/// # Errors
/// A malformed URL, or a file that cannot be read.
pub fn start(
    roles: &[RoleName],
    args: &WorkerArgs,
    monitor: &Monitor,
    stop: &CancellationToken,
) -> anyhow::Result<JoinSet<()>> {
    args.broker.check().map_err(anyhow::Error::msg)?;
    let pool = args.database.pool().context("DATABASE_URL")?;
    let settling_pool = args.database.settling_pool().context("DATABASE_URL")?;
    monitor.uses("roles", &pool);
    monitor.uses("settling", &settling_pool);
    let announcer = Announcer::start(args.redis.client()?, &args.broker.queue_namespace)
        .context("REDIS_URL")?;
    let is_sending = roles.contains(&RoleName::SendToDataPlatform);
    let mut platform = if is_sending { platform(args)? } else { None };
    let notifier = Notifier::start(&pool);
    let mut running = JoinSet::new();
    let watching = monitor.watch(&pool, args.redis.client()?, stop.clone());
    running.spawn(watching.context("REDIS_URL")?);
    for role in roles {
        let (broker, pool, stop) = (args.broker.clone(), pool.clone(), stop.clone());
        let watched = || monitor.role(role.as_str());
        let crew = |family| {
            let (announcer, notifier) = (announcer.clone(), notifier.clone());
            let (broker, pool) = (args.broker.clone(), settling_pool.clone());
            let monitor = watched();
            let metrics = Arc::clone(&monitor.metrics);
            let shared = line::Shared::default();
            let context = line::Context { family, pool, announcer, notifier, metrics, shared };
            let role = Role { context, broker, monitor };
            crew::run(Arc::new(role), stop.clone())
        };
        match role {
            RoleName::Coupons => _ = running.spawn(crew(Family::Coupon)),
            RoleName::Products => _ = running.spawn(crew(Family::Product)),
            RoleName::RelayOutbox => {
                let asked_for = args.data_platform_events.clone();
                running.spawn(relay_outbox::run(broker, pool, asked_for, watched(), stop));
            }
            RoleName::UpdateSalesStats => {
                let time_zone = args.time_zone.business_time_zone.clone();
                let retention = args.retention.job_retention;
                running.spawn(purge::run(pool.clone(), time_zone.clone(), retention, stop.clone()));
                let counting = update_sales_stats::run(broker, pool, time_zone, watched(), stop);
                running.spawn(counting);
            }
            RoleName::SendToDataPlatform => match platform.take() {
                Some(platform) => {
                    let monitor = watched();
                    let sending = send_to_data_platform::run(broker, pool, platform, monitor, stop);
                    running.spawn(sending);
                }
                None => tracing::warn!(
                    "no DATA_PLATFORM_URL: events for the data platform wait in their queue"
                ),
            },
        }
    }
    Ok(running)
}

/// Whether the database, if it answers, is as these roles need it.
async fn check_database(roles: &[RoleName], args: &WorkerArgs) -> anyhow::Result<()> {
    let pool = asking_pool(args.database.pool()).await?;
    if roles.contains(&RoleName::UpdateSalesStats) {
        firstcome_process::database::check_time_zone(&pool, &args.time_zone.business_time_zone)
            .await
            .map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

async fn work(roles: &[RoleName], args: &WorkerArgs) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    firstcome_process::shutdown::on_signal(stop.clone()).context("cannot listen for signals")?;
    let monitor = Arc::new(Monitor::default());
    check_database(roles, args).await?;
    let listener = Monitor::listen(args.worker_addr).await?;
    let running = start(roles, args, &monitor, &stop)?;
    // Also while the batches in hand settle, and not a moment longer.
    let serving = AbortOnDropHandle::new(tokio::spawn(monitor.serve(listener)));
    running.join_all().await;
    drop(serving);
    tracing::info!("stopped");
    Ok(())
}
