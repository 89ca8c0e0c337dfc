//! What the command line says.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};
use firstcome_rig::settings::ServerArgs;

/// Shows Firstcome at work.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Hold a coupon drop, a product sale and its returns on a system and a database of its own, report and
    /// audit them. Exits with 0 only if everything was right.
    Demo(DemoArgs),
    /// Run the system in the foreground, for development.
    Run(RunArgs),
}

/// What `demo` can be told.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many users want a coupon; every 5th is impatient and clicks twice.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) users: u32,
    /// How many coupons there are.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) coupons: u32,
    /// How many orders the same users then place; every 10th is sent twice.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) orders: u32,
    /// How many consoles there are for them.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pub(crate) stock: u32,
    /// How many connections click at once; as many more poll. Every one needs a file descriptor
    /// here and in the API (see `ulimit -n`).
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) connections: u32,
    /// Break off after so many seconds; what is not settled then is a violation.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    pub(crate) deadline: u64,
    #[command(flatten)]
    pub(crate) servers: ServerArgs,
}

/// What `run` can be told.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Where the API listens.
    #[arg(long, env = "API_ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) api_addr: SocketAddr,
    /// Prefix of all queue names, Redis keys and channels.
    #[arg(long, env = "QUEUE_NAMESPACE", default_value = "firstcome")]
    pub(crate) queue_namespace: String,
    /// How many sample users there are at least.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=10_000_000))]
    pub(crate) users: u32,
    #[command(flatten)]
    pub(crate) servers: ServerArgs,
}
