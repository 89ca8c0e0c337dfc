//! The commands of `firstcome-worker`.

use std::net::SocketAddr;

use clap::{Parser, Subcommand};
use firstcome_contract::{family::Family, line::MAX_PARTITIONS};
use firstcome_process::telemetry;

use crate::{
    commands::{dead_letters, health::HealthArgs, plan::PlanArgs, preflight::PreflightArgs},
    config::{DatabaseArgs, ReconcileArgs, RetentionArgs, TimeZoneArgs, WorkerArgs},
    roles::RoleCommand,
};

/// Settles what firstcome-api accepted. Run one role per process, or all roles in one.
///
/// Every process exits with 0 after SIGTERM or Ctrl-C, once the batches in hand are settled.
#[derive(Debug, Parser)]
#[command(version, after_help = telemetry::HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What this process does.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the roles have their own help")]
    Role(RoleCommand),
    /// A stand-in for the data platform, for development: records what it gets at POST /events, tells at GET /events
    /// which events these were and how often each came, at GET /figures how many, and misbehaves after PUT /mode (ok, slow,
    /// error, overloaded, hang, mute, elsewhere).
    MockDataPlatform {
        /// Where to listen.
        #[arg(long, env = "MOCK_DATA_PLATFORM_ADDR", default_value = "127.0.0.1:9090")]
        address: SocketAddr,
        /// Only what is signed with one of these secrets is taken, if there are any; as the sender's.
        #[arg(long, env = "DATA_PLATFORM_SIGNING_SECRET", hide_env_values = true)]
        signing_secret: Option<String>,
        /// Only who has this token is heard, if there is one.
        #[arg(long, env = "DATA_PLATFORM_TOKEN", hide_env_values = true)]
        token: Option<String>,
    },
    /// Every role, in one process (the default); without DATA_PLATFORM_URL, events for it wait in their queue.
    All(WorkerArgs),
    /// List, redrive or discard what could not be processed.
    DeadLetters {
        /// What to do.
        #[command(subcommand)]
        action: dead_letters::Action,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the text would replace the command's own help")]
        database: DatabaseArgs,
    },
    /// Change how many partitions a family of lines has, also while it is running: no job is lost, none
    /// overtakes another of its key.
    Partitions {
        /// coupon or product.
        #[arg(value_parser = Family::parse)]
        family: Family,
        /// How many.
        #[arg(value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_PARTITIONS)))]
        count: u16,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the text would replace the command's own help")]
        database: DatabaseArgs,
    },
    /// Bring the database schema to this version, then exit.
    Migrate(DatabaseArgs),
    /// Create sample users and coupons for development, then exit. Keeps what exists.
    SampleData {
        /// How many users.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(1..=10_000_000))]
        users: i64,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the text would replace the command's own help")]
        database: DatabaseArgs,
    },
    /// Recount the sales statistics from the orders, completed and cancelled, repair and print what differs.
    RebuildStats {
        /// How many days before today.
        #[arg(long, default_value_t = crate::events::update_sales_stats::REBUILD_DAYS, value_parser = clap::value_parser!(i32).range(0..=3650))]
        days: i32,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the text would replace the command's own help")]
        time_zone: TimeZoneArgs,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the text would replace the command's own help")]
        database: DatabaseArgs,
    },
    /// Delete what is older than JOB_RETENTION, then exit. The role update-sales-stats does it daily;
    /// this also finds what came late.
    Purge {
        #[command(flatten)]
        #[expect(missing_docs, reason = "the text would replace the command's own help")]
        retention: RetentionArgs,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the text would replace the command's own help")]
        time_zone: TimeZoneArgs,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the text would replace the command's own help")]
        database: DatabaseArgs,
    },
    /// Check every invariant on a live database, then exit: 0 if all hold, 1 if one is violated.
    Audit(DatabaseArgs),
    /// Before a sale: whether the coupon or product, its line, and all that settling it takes are ready, a line for each
    /// check; then exit: 0 if none failed, 1 otherwise.
    Preflight(PreflightArgs),
    /// How long a sale would take, and how many lines it needs, by what the lines of this installation have settled.
    Plan(PlanArgs),
    /// Ask the program of this container how it is, then exit: 0 if it does its work, 1 otherwise.
    Health(HealthArgs),
    /// After PostgreSQL went back to an earlier moment, or RabbitMQ lost its data: find jobs with an
    /// Idempotency-Key that have no outcome and are in no line any more, end them (failed, job-lost) and
    /// free their keys. Jobs without a key end by themselves when they are polled.
    Reconcile(ReconcileArgs),
}
