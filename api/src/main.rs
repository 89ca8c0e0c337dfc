//! `firstcome-api`: serves the HTTP API, or makes a token for it.

use clap::Parser;
use firstcome_api::config::Cli;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    firstcome_shared::telemetry::init();
    firstcome_api::command(Cli::parse().command).await
}
