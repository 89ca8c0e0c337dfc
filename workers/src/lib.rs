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
pub mod outcome;
pub mod place_order;
pub mod registry;
pub mod runtime;
pub mod sample_data;

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use firstcome_shared::job::JobKind;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use config::{Command, WorkerArgs};
use runtime::{Announcer, Role};

/// Does what the command line asks for.
///
/// # Errors
/// With a hint for the operator.
pub async fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::IssueCoupon(args) => work(&[JobKind::IssueCoupon], &args).await?,
        Command::PlaceOrder(args) => work(&[JobKind::PlaceOrder], &args).await?,
        Command::All(args) => work(&JobKind::ALL, &args).await?,
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

async fn work(kinds: &[JobKind], args: &WorkerArgs) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    firstcome_shared::shutdown::on_signal(stop.clone()).context("cannot listen for signals")?;
    let pool = args.database.pool().context("DATABASE_URL")?;
    let announcer =
        Announcer::start(&args.redis_url, &args.broker.queue_namespace).context("REDIS_URL")?;
    let mut roles = JoinSet::new();
    for kind in kinds {
        let role = Role {
            kind: *kind,
            broker: args.broker.clone(),
            pool: pool.clone(),
            announcer: announcer.clone(),
        };
        roles.spawn(runtime::run(Arc::new(role), stop.clone()));
    }
    roles.join_all().await;
    tracing::info!("stopped");
    Ok(())
}
