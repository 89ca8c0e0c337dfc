//! `firstcome-bench`: the flash-sale demo, and the system in the foreground for development.

use clap::Parser;
use firstcome_bench::Cli;

#[tokio::main]
async fn main() -> anyhow::Result<std::process::ExitCode> {
    firstcome_bench::command(Cli::parse().command).await
}
