//! `firstcome-worker`: one role per process, or all.

use clap::Parser;
use firstcome_workers::config::Cli;

#[tokio::main]
async fn main() -> anyhow::Result<std::process::ExitCode> {
    firstcome_shared::telemetry::init();
    firstcome_workers::command(Cli::parse().command).await
}
